"""TRPO: its products against the general ones, its constraint, and what happens where it cannot step."""

import pytest
import torch
import worlds
from torch.func import functional_call

import fewstep as fs
from fewstep import rl


class Adapted(torch.nn.Module):
    """A learner whose ``forward`` is the divergence, so that it can be a function of its parameters."""

    def __init__(self, learner, trajectories):
        super().__init__()
        self.learner, self.trajectories = learner, trajectories
        with torch.no_grad():
            self.old = learner.distributions(trajectories)

    def forward(self):
        return rl.mean_kl(self.trajectories, self.old, self.learner.distributions(self.trajectories))


def general_product(learner, trajectories, vector):
    """The Hessian of the mean divergence times a vector, forward over reverse."""
    module = Adapted(learner, trajectories)
    names = [name for name, _ in module.named_parameters()]

    def kl(values):
        return functional_call(module, dict(zip(names, values, strict=True)), ())

    at = tuple(value.detach() for value in learner.parameters())
    return torch.func.jvp(torch.func.grad(kl), (at,), (tuple(vector),))[1]


CASES = {
    "one step": {},
    "three steps": {"steps": 3},
    "first order": {"steps": 2, "adjoint": fs.FirstOrder()},
    "dice inside": {"inner_loss": rl.dice},
    "a part adapted": {"adapts": "network.2.*"},
    "pretraining": {"steps": 0},
    "in chunks": {"chunk": 3},
    "learned rates": {
        "steps": 2,
        "rule": fs.LearnedRates(rl.GaussianPolicy(2, 2, [8]).named_parameters(), 0.1, per="parameter"),
    },
}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("choices", CASES.values(), ids=CASES.keys())
def test_the_fisher_product_is_the_hessian_of_the_divergence(choices):
    learner = worlds.learner(**choices).double()
    trajectories = learner.collect(worlds.tasks(learner))
    vector = [torch.randn_like(value) for value in learner.parameters()]
    product = rl.FisherProduct(learner, trajectories)
    expected = general_product(learner, trajectories, vector)
    for _ in range(2):  # the graphs are used again
        torch.testing.assert_close(product(vector), list(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_recomputed_gives_the_product_of_unrolled():
    learner, other = worlds.learner(steps=2), worlds.learner(steps=2, adjoint=fs.Recomputed())
    other.load_state_dict(learner.state_dict())
    trajectories = learner.collect(worlds.tasks(learner))
    vector = [torch.randn_like(value) for value in learner.parameters()]
    found, expected = (rl.FisherProduct(x, trajectories)(vector) for x in (other, learner))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_the_same_for_discrete_actions_and_episodes_that_end_early():
    class Smooth(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Linear(2, 3)

        def forward(self, observations):
            return rl.Categorical(self.logits(observations))

    from test_rollouts import Corridor

    learner = rl.MetaPolicy(Smooth(), rl.Rollouts(Corridor(12), 3), rule=fs.GradientDescent(0.5))
    trajectories = learner.collect(worlds.tasks(learner))
    trajectories.query.mask[:, :2, 3:] = 0
    vector = [torch.randn_like(value) for value in learner.parameters()]
    expected = general_product(learner, trajectories, vector)
    torch.testing.assert_close(rl.FisherProduct(learner, trajectories)(vector), list(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_the_direction_solves_the_system():
    learner = worlds.learner(policy=rl.GaussianPolicy(2, 2, [3], activation=torch.nn.Tanh))
    optimizer = rl.TRPO(learner, cg_steps=60, damping=1e-2)
    trajectories = learner.collect(worlds.tasks(learner))
    gradient = torch.autograd.grad(learner.loss_on(trajectories), learner.parameters())
    product = rl.FisherProduct(learner, trajectories)
    direction = optimizer.direction(gradient, product)
    image = product(direction)
    solved = [f + 1e-2 * x for f, x in zip(image, direction, strict=True)]
    torch.testing.assert_close(solved, [-g for g in gradient], rtol=1e-6, atol=1e-8)


def test_a_step_lowers_the_loss_within_the_bound():
    learner = worlds.learner(episodes=10, copies=40)
    optimizer, tasks = rl.TRPO(learner, max_kl=0.01), worlds.tasks(learner)
    trajectories = learner.collect(tasks)
    before = learner.loss_on(trajectories).item()
    old = learner.distributions(trajectories)
    loss = optimizer.meta_step(tasks)
    report = optimizer.report()
    assert loss < before
    assert learner.loss_on(trajectories).item() == pytest.approx(loss.item(), abs=1e-6)
    assert 0.001 < rl.mean_kl(trajectories, old, learner.distributions(trajectories)).item() <= 0.01
    assert report["kl"] == pytest.approx(
        rl.mean_kl(trajectories, old, learner.distributions(trajectories)).item(), rel=1e-3
    )
    assert report["step_found"] == 1
    assert report["return_after"] == pytest.approx(trajectories.query.returns.mean().item())
    assert optimizer.report() == {}


@pytest.mark.parametrize("why", ["no gradient", "no step within the bound"])
def test_a_step_that_finds_nothing_leaves_the_parameters_and_says_so(why, monkeypatch):
    learner = worlds.learner()
    if why == "no gradient":
        monkeypatch.setattr(learner.rollouts, "baseline", lambda observations, returns, mask: returns)
    else:
        monkeypatch.setattr(rl.trpo, "mean_kl", lambda *_: 1.0)
    optimizer = rl.TRPO(learner, backtracks=2)
    before = [value.clone() for value in learner.parameters()]
    optimizer.meta_step(worlds.tasks(learner))
    assert optimizer.report()["step_found"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("choices", CASES.values(), ids=CASES.keys())
def test_the_pass_that_builds_the_product_gives_loss_gradient_and_distributions(choices):
    learner = worlds.learner(**choices).double()
    trajectories = learner.collect(worlds.tasks(learner))
    loss = learner.loss_on(trajectories)
    gradient = torch.autograd.grad(loss, learner.parameters(), materialize_grads=True)
    for tasks in (None, 0, 2):
        found = rl.FisherProduct(learner, trajectories, tasks)
        torch.testing.assert_close(found.loss, loss.detach())
        torch.testing.assert_close(found.gradient, list(gradient), rtol=1e-10, atol=1e-12)
        assert rl.mean_kl(trajectories, found.distributions, learner.distributions(trajectories)) < 1e-12


@pytest.mark.parametrize("chunk", [None, 3])
def test_a_subsample_of_tasks_gives_the_fisher_matrix(chunk):
    learner = worlds.learner(chunk=chunk)
    trajectories = learner.collect(worlds.tasks(learner))
    gradient = rl.FisherProduct(learner, trajectories, tasks=2).gradient
    optimizer = rl.TRPO(learner, cg_tasks=2)
    expected = optimizer.direction(gradient, rl.FisherProduct(learner, trajectories[:2]))
    torch.testing.assert_close(optimizer.search(trajectories)[2], expected)


def test_is_an_optimizer_that_fit_and_checkpoints_know(tmp_path):
    def run(iterations, **where):
        torch.manual_seed(0)
        learner = worlds.learner()
        source = rl.EnvironmentTasks(learner.rollouts.environment)
        options = {"meta_batch": 4, "progress": False, "log_every": 2, "checkpoint_every": 1}
        rows = fs.fit(learner, source, rl.TRPO(learner), iterations=iterations, **options, **where)
        return learner, rows

    whole, rows = run(4, run=tmp_path / "whole")
    run(2, run=tmp_path / "parts")
    resumed, again = run(4, run=tmp_path / "parts", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert rows == again
    assert {"iteration", "loss", "return_before", "return_after", "kl", "step_found"} <= rows[-1].keys()


def test_refuses_what_it_cannot_do():
    learner = worlds.learner()
    with pytest.raises(TypeError, match="Call meta_step"):
        rl.TRPO(learner).step()
    with pytest.raises(ValueError, match="max_kl must be a finite number greater than 0"):
        rl.TRPO(learner, max_kl=0)
    with pytest.raises(ValueError, match="at least 1"):
        rl.TRPO(learner, cg_tasks=0)
    source = rl.EnvironmentTasks(learner.rollouts.environment)
    with pytest.raises(ValueError, match="clip_norm does not apply to TRPO"):
        fs.fit(learner, source, rl.TRPO(learner), iterations=1, clip_norm=1.0)
