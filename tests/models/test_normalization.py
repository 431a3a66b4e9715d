"""Every normalisation policy: which statistics it uses, on its own and in meta-learning."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep.models import BatchNorm, Conv4, PerStepNorm, RunningNorm, SupportNorm, norm_layer

pytestmark = pytest.mark.usefixtures("double")
POLICIES = ["batch", "support", "running", "per_step", "group", "layer", "none"]
FROZEN_NORMS = ["*", "!*.norm.*"]


def network(policy: str, pool: bool = True) -> Conv4:
    made = Conv4(1, 3, filters=4, image_size=16, pool=pool, norm=norm_layer(policy, steps=2))
    with torch.no_grad():  # so that no ReLU sits at 0, where a group of one channel and one position would put it
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def episodes(tasks: int = 3, shots: int = 2, queries: int = 3) -> fs.tasks.Task:
    def images(each: int) -> fs.tasks.Batch:
        return fs.tasks.Batch(torch.rand(tasks, 3 * each, 1, 16, 16), torch.arange(3).repeat(tasks, each))

    return fs.tasks.Task(images(shots), images(queries))


def learner_of(model: nn.Module, **choices: object) -> fs.MetaLearner:
    adapts = ["*", "!*.norm.*"] if any(".norm." in name for name, _ in model.named_parameters()) else "*"
    return fs.maml(model, fs.cross_entropy, 0.3, steps=2, adapts=adapts, **choices)


def gradient(learner: fs.MetaLearner, tasks: fs.tasks.Task) -> list[Tensor]:
    learner.zero_grad()
    learner.meta_loss(tasks).backward()
    return [value.grad for value in learner.parameters()]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pool", [True, False])
def test_vmap_loop_and_compilation_agree(policy: str, pool: bool) -> None:
    """Loop = vmap and recomputed = unrolled, for every policy."""
    model, tasks = network(policy, pool), episodes()
    expected = gradient(learner_of(model, vectorize=False), tasks)
    for choices in ({"vectorize": True}, {"vectorize": True, "adjoint": fs.Recomputed()}):
        came = gradient(learner_of(model, **choices), tasks)
        torch.testing.assert_close(came, expected, rtol=1e-7, atol=1e-9)


class SmoothNetwork(nn.Module):
    """One layer and a smooth activation, so that finite differences are accurate."""

    def __init__(self, policy: str) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(16, 4), nn.Linear(4, 3)
        self.norm = norm_layer(policy, steps=2)(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.norm(self.layer(x.flatten(1)[:, ::16]))))


@pytest.mark.parametrize("policy", POLICIES)
def test_meta_gradient_by_finite_differences(policy: str) -> None:
    model, tasks = SmoothNetwork(policy), episodes(tasks=1)
    adapts = ["*", "!norm.*"] if list(model.norm.parameters()) else "*"
    learner = fs.maml(model, fs.cross_entropy, 0.3, steps=2, adapts=adapts)
    learner.eval() if policy == "running" else learner.train()
    expected = gradient(learner, tasks)
    for value, grad in zip(learner.parameters(), expected, strict=True):
        direction = torch.randn_like(value)
        with torch.no_grad():
            losses = []
            for sign in (1, -1):
                value.add_(direction, alpha=sign * 1e-6)
                losses.append(learner.meta_loss(tasks))
                value.sub_(direction, alpha=sign * 1e-6)
        difference = (losses[0] - losses[1]) / 2e-6
        torch.testing.assert_close((grad * direction).sum(), difference, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("policy", POLICIES)
def test_only_batch_statistics_are_transductive(policy: str) -> None:
    learner, task = learner_of(network(policy)).eval(), episodes(tasks=1)[0]
    model = learner.adapt(task.support)
    together = model(task.query.x)
    alone = torch.cat([model(x[None]) for x in task.query.x])
    same = torch.allclose(together, alone, atol=1e-9)
    assert same == (policy not in ("batch", "per_step"))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_adapted_module_equals_the_scored_one(policy: str) -> None:
    learner, tasks = learner_of(network(policy)).eval(), episodes(tasks=2)
    scores = learner.score(tasks, fs.cross_entropy, steps=2)
    for i in range(2):
        model = learner.adapt(tasks[i].support, steps=2)
        torch.testing.assert_close(fs.cross_entropy(model, tasks[i].query), scores[i, -1])


@pytest.mark.parametrize("policy", ["support", "per_step"])
def test_an_adapted_module_is_saved_and_loaded_as_a_plain_one(policy: str) -> None:
    learner, task = learner_of(network(policy)), episodes(tasks=1)[0]
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model = learner.adapt(task.support)
    fresh = network(policy)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(task.query.x), model(task.query.x))


def test_support_statistics_are_those_of_the_support_set() -> None:
    norm = SupportNorm(2)
    learner = fs.maml(nn.Sequential(norm, nn.Flatten(), nn.Linear(2, 3)), fs.cross_entropy, 0.1, steps=1, adapts="2.*")
    support, query = torch.randn(6, 2) * 3 + 1, torch.randn(4, 2)
    model = learner.adapt(fs.tasks.Batch(support, torch.arange(6) % 3))
    expected = (query - support.mean(0)) / (support.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(model[0](query), expected)


def test_running_averages_follow_training_and_not_evaluation() -> None:
    learner, tasks = learner_of(network("running")), episodes()
    norm = learner.model.body[0].norm
    assert isinstance(norm, RunningNorm)
    before = norm.mean.clone()
    learner.meta_loss(tasks)
    moved = norm.mean.clone()
    assert not torch.equal(moved, before)
    path_end = learner.adapt(tasks[0].support)
    maps = fs.models.second_order.convolve(tasks[0].query.x, path_end.body[0].weight)
    torch.testing.assert_close(moved, 0.95 * before + 0.05 * maps.mean((0, 2, 3)))
    learner.eval()
    learner.meta_loss(tasks)
    learner.score(tasks)
    assert torch.equal(norm.mean, moved)


def test_per_step_norms_use_the_scale_and_shift_of_their_step() -> None:
    model = nn.Sequential(nn.Linear(2, 3), PerStepNorm(3, steps=2))
    task = fs.tasks.Task(*(fs.tasks.Batch(torch.randn(6, 2), torch.arange(6) % 3) for _ in range(2)))
    learner = fs.maml(model, fs.cross_entropy, 0.3, steps=2, adapts="0.*")
    norm = learner.model[1]
    with torch.no_grad():
        norm.weight.copy_(torch.rand(2, 3) + 0.5)
        norm.bias.copy_(torch.randn(2, 3))

    def logits(weight: Tensor, bias: Tensor, x: Tensor, step: int) -> Tensor:
        z = nn.functional.batch_norm(x @ weight.T + bias, None, None, training=True)
        return z * norm.weight[step] + norm.bias[step]

    params = [value.detach().clone().requires_grad_() for value in learner.model[0].parameters()]
    scores = learner.score(fs.tasks.Task.stack([task]), fs.cross_entropy, steps=3)[0]
    for step in (0, 1, 2, 3):
        own = min(max(step - 1, 0), 1)
        loss = nn.functional.cross_entropy(logits(*params, task.query.x, own), task.query.y)
        torch.testing.assert_close(scores[step], loss.detach())
        inner = nn.functional.cross_entropy(logits(*params, task.support.x, min(step, 1)), task.support.y)
        grads = torch.autograd.grad(inner, params)
        params = [(value - 0.3 * grad).detach().requires_grad_() for value, grad in zip(params, grads, strict=True)]


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"policy must be one of \['batch'.*got 'bacth'"):
        norm_layer("bacth")  # type: ignore[arg-type]
    shared = SupportNorm(3)
    twice = nn.Sequential(nn.Linear(2, 3), shared, nn.Linear(3, 3), shared)
    task = fs.tasks.Task(*(fs.tasks.Batch(torch.randn(6, 2), torch.arange(6) % 3) for _ in range(2)))
    learner = fs.maml(twice, fs.cross_entropy, 0.1, vectorize=False)
    with pytest.raises(ValueError, match="called twice"):
        learner.meta_loss(fs.tasks.Task.stack([task]))


def test_the_users_model_is_not_modified() -> None:
    model = network("running")
    before = copy.deepcopy(model.state_dict())
    learner_of(model).meta_loss(episodes()).backward()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert isinstance(norm_layer("batch")(4), BatchNorm)
