"""The adjoints against each other, against a hand-written inner loop, and against the ``higher`` package."""

import higher
import pytest
import torch
from gradients.checks import SmoothNetwork, assert_same, meta_gradient, regression_tasks
from torch import nn
from torch.func import functional_call

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


def learned_rates(per, steps=None):
    def rule(model, names):
        params = dict(model.named_parameters())
        rates = fs.LearnedRates({name: params[name] for name in names}, 0.2, per=per, steps=steps)
        for rate in rates.parameters():
            nn.init.uniform_(rate, 0.05, 0.3)
        return rates

    return rule


RULES = {
    "descent": lambda model, names: fs.GradientDescent(0.2),
    "momentum": lambda model, names: fs.GradientDescent(0.1, momentum=0.9),
    "adam": lambda model, names: fs.Adam(0.05, eps=1e-2),
    "meta-sgd": learned_rates("parameter"),
    "maml++": learned_rates("tensor", steps=3),
}
ALL = ["first.weight", "first.bias", "second.bias", "head.weight", "head.bias"]
HEAD = ["head.weight", "head.bias"]


@pytest.mark.parametrize("objective", [fs.query_loss, fs.multi_step_loss((0.2, 0.0, 0.3, 0.5))])
@pytest.mark.parametrize("names", [ALL, HEAD], ids=["all", "head"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_recomputed_equals_unrolled(mode, rule, names, objective):
    model, tasks = SmoothNetwork(), regression_tasks()
    rule = RULES[rule](model, names)
    unrolled, recomputed = (
        fs.MetaLearner(model, fs.mse, rule=rule, steps=4, adapts=names, adjoint=adjoint, objective=objective)
        for adjoint in (fs.Unrolled(), fs.Recomputed(mode))
    )
    torch.testing.assert_close(recomputed.meta_loss(tasks), unrolled.meta_loss(tasks), rtol=0, atol=1e-13)
    assert_same(meta_gradient(recomputed, tasks), meta_gradient(unrolled, tasks), atol=1e-12)


@pytest.mark.parametrize("rule", ["descent", "momentum", "adam"])
@pytest.mark.parametrize("names", [ALL, HEAD], ids=["all", "head"])
def test_first_order_is_the_query_gradient_at_phi(rule, names):
    model, tasks = SmoothNetwork(), regression_tasks()
    learner = fs.MetaLearner(
        model, fs.mse, rule=RULES[rule](model, names), steps=3, adapts=names, adjoint=fs.FirstOrder()
    )
    expected = {name: torch.zeros_like(value) for name, value in learner.model.named_parameters() if name in ALL}
    for i in range(len(tasks)):
        adapted = learner.adapt(tasks.support[i])
        fs.mse(adapted, tasks.query[i]).backward()
        for name, value in adapted.named_parameters():
            if name in ALL:
                expected[name] += value.grad / len(tasks)
    came = {name.removeprefix("model."): gradient for name, gradient in meta_gradient(learner, tasks).items()}
    assert_same(came, expected, atol=1e-12)


def test_first_order_still_learns_rates():
    """dL/dα = −⟨∇L(φ; query), ∇L(θ; support)⟩ after one step of a rate per tensor."""
    model, tasks = SmoothNetwork(), regression_tasks(count=1)
    rule = fs.LearnedRates({name: value for name, value in model.named_parameters() if name in ALL}, 0.2, per="tensor")
    learner = fs.MetaLearner(model, fs.mse, rule=rule, steps=1, adjoint=fs.FirstOrder())
    came = meta_gradient(learner, tasks)
    task, adapted = tasks[0], learner.adapt(tasks[0].support)
    fs.mse(adapted, task.query).backward()
    fs.mse(model, task.support).backward()
    at_theta = dict(model.named_parameters())
    for name, value in adapted.named_parameters():
        if name in ALL:
            expected = -(value.grad * at_theta[name].grad).sum()
            torch.testing.assert_close(came[f"rule.rates.{name.replace('.', '/')}"], expected)


def by_hand(model, tasks, lr, steps):
    """MAML with autograd alone: ``create_graph=True``, one task after the other."""
    theta = {name: value for name, value in model.named_parameters() if value.requires_grad}
    total = 0
    for i in range(len(tasks)):
        phi = theta
        for _ in range(steps):
            support = tasks.support[i]
            loss = (functional_call(model, phi, support.x) - support.y).square().mean()
            grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            phi = {name: value - lr * grad for (name, value), grad in zip(phi.items(), grads, strict=True)}
        query = tasks.query[i]
        total = total + (functional_call(model, phi, query.x) - query.y).square().mean() / len(tasks)
    return dict(zip((f"model.{name}" for name in theta), torch.autograd.grad(total, list(theta.values())), strict=True))


def with_higher(model, tasks, optimizer, steps):
    total = 0
    for i in range(len(tasks)):
        with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (functional, inner):
            for _ in range(steps):
                inner.step(fs.mse(functional, tasks.support[i]))
            total = total + fs.mse(functional, tasks.query[i]) / len(tasks)
    model.zero_grad()
    total.backward()
    return {f"model.{name}": value.grad for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()])
@pytest.mark.parametrize("steps", [1, 3])
def test_against_a_hand_written_loop(steps, adjoint):
    model, tasks = SmoothNetwork(), regression_tasks()
    learner = fs.maml(model, fs.mse, 0.2, steps, adjoint=adjoint)
    assert_same(meta_gradient(learner, tasks), by_hand(model, tasks, 0.2, steps), atol=1e-12)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_against_higher(momentum, adjoint):
    model, tasks = SmoothNetwork(), regression_tasks()
    rule = fs.GradientDescent(0.1, momentum)
    learner = fs.MetaLearner(model, fs.mse, rule=rule, steps=3, adjoint=adjoint)
    params = [value for value in model.parameters() if value.requires_grad]
    expected = with_higher(model, tasks, torch.optim.SGD(params, 0.1, momentum), steps=3)
    assert_same(meta_gradient(learner, tasks), expected, atol=1e-12)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder()])
def test_functional_adapt_composes_with_grad_and_vmap(adjoint):
    """The functional core under ``torch.func.grad`` and ``torch.vmap`` gives the meta-gradient of the learner."""
    model, tasks = SmoothNetwork(), regression_tasks()
    theta = {name: value.detach() for name, value in model.named_parameters() if name in ALL}

    def loss(params, batch):
        return (functional_call(model, params, batch.x) - batch.y).square().mean()

    def meta_loss(theta):
        def one(task):
            return loss(fs.adapt(loss, theta, task.support, fs.GradientDescent(0.2), 2, adjoint), task.query)

        return torch.vmap(one)(tasks).mean()

    came = {f"model.{name}": value for name, value in torch.func.grad(meta_loss)(theta).items()}
    assert_same(came, meta_gradient(fs.maml(model, fs.mse, 0.2, 2, adjoint=adjoint), tasks), atol=1e-12)


def test_functional_adapt_changes_only_the_named_parameters():
    params = {"moved": torch.tensor(1.0), "kept": torch.tensor(3.0)}
    adapted = fs.adapt(
        lambda p, x: p["moved"] * p["kept"] * x, params, torch.tensor(2.0), fs.GradientDescent(0.1), 1, adapts=["moved"]
    )
    assert adapted["kept"] is params["kept"]
    torch.testing.assert_close(adapted["moved"], torch.tensor(1.0 - 0.1 * 6.0))
    with pytest.raises(KeyError, match=r"\['absent'\].*'moved', 'kept'"):
        fs.adapt(lambda p, x: x, params, torch.tensor(2.0), fs.GradientDescent(0.1), 1, adapts=["absent"])


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()], ids=["unrolled", "recomputed"])
def test_adapt_under_the_users_vmap_with_a_scaled_norm(adjoint, double):
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 1))
    x = torch.randn(4, 6, 2)
    y = x.sum(-1, keepdim=True).sin()

    def loss(params, batch):
        return (torch.func.functional_call(model, params, (batch[0],)) - batch[1]).square().mean()

    def objective(x, y):
        params = dict(model.named_parameters())
        return loss(fs.adapt(loss, params, (x, y), fs.GradientDescent(0.3), 2, adjoint), (x, y))

    parameters = list(model.parameters())
    together = torch.autograd.grad(torch.vmap(objective)(x, y).mean(), parameters)
    apart = torch.autograd.grad(torch.stack([objective(x[i], y[i]) for i in range(4)]).mean(), parameters)
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("vectorize", [True, False])
def test_recomputed_with_constant_gradients(vectorize: bool) -> None:
    """A loss that is linear in some parameters has constant gradients."""

    def loss(model: nn.Module, batch: fs.tasks.Batch) -> torch.Tensor:
        return (model.weight * batch.x).sum() + model.bias.square().sum()

    task = fs.tasks.Sinusoids(shots=3).sample(2).to(torch.float64)
    found = []
    for adjoint in (fs.Unrolled(), fs.Recomputed()):
        torch.manual_seed(0)
        model = nn.Linear(1, 1).double()
        learner = fs.maml(model, loss, 0.1, steps=3, adjoint=adjoint, vectorize=vectorize)
        learner.meta_loss(task).backward()
        found.append([value.grad for value in learner.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)
