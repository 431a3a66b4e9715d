"""Choices: losses of (prediction, target), conflicting arguments, assignments, truncation, a custom adjoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradients.checks import SmoothNetwork, assert_same, classification_tasks, meta_gradient, regression_tasks
from torch import Tensor, nn
from torch.nn import functional as F

import fewstep as fs
from fewstep.adaptation import adjoints
from fewstep.adaptation.inner_loop import inner_loop
from fewstep.tasks import Task

pytestmark = pytest.mark.usefixtures("double")


# Losses of (prediction, target)


@pytest.mark.parametrize("loss", [F.mse_loss, nn.MSELoss()])
@pytest.mark.parametrize("options", [{"vectorize": True}, {"vectorize": False}, {"adjoint": fs.Recomputed()}])
def test_supervised_mse_is_mse(loss: Any, options: dict[str, Any]) -> None:
    net, tasks = SmoothNetwork(), regression_tasks()
    ours, plain = (fs.maml(net, each, 0.3, 2, **options) for each in (fs.supervised(loss), fs.mse))
    assert_same(meta_gradient(ours, tasks), meta_gradient(plain, tasks), atol=1e-13)
    torch.testing.assert_close(ours.score(tasks), plain.score(tasks))


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss()])
def test_supervised_cross_entropy_is_cross_entropy(loss: Any) -> None:
    net, tasks = nn.Linear(2, 3), classification_tasks()
    ours, plain = (fs.maml(net, each, 0.3, 2) for each in (fs.supervised(loss), fs.cross_entropy))
    assert_same(meta_gradient(ours, tasks), meta_gradient(plain, tasks), atol=1e-13)


def test_supervised_modules_with_parameters_are_learned_losses() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.8))

        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return self.scale * (prediction - target).square().mean()

    learner = fs.maml(SmoothNetwork(), fs.mse, 0.3, 2, inner_loss=fs.supervised(Scaled()))
    check = fs.check_gradients(learner, regression_tasks(), tolerance=1e-6)
    assert "inner_loss.loss" in [group.name for group in check.groups]
    assert check.ok, check


def test_supervised_refuses_weights() -> None:
    tasks = Task.stack([regression_tasks(1, shots)[0] for shots in (2, 4)])
    with pytest.raises(ValueError, match=r"cannot honour Batch\.weight.*list of tasks.*fewstep\.mse"):
        fs.maml(SmoothNetwork(), fs.supervised(F.mse_loss), 0.1).meta_loss(tasks)


def test_the_name_of_a_supervised_loss() -> None:
    assert fs.supervised(F.huber_loss).__name__ == "huber_loss"
    assert fs.supervised(nn.L1Loss()).__name__ == "L1Loss"


@pytest.mark.parametrize("name", ["loss", "inner_loss"])
@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (F.mse_loss, r"fewstep\.supervised\(torch\.nn\.functional\.mse_loss\)"),
        (F.cross_entropy, r"fewstep\.supervised\(torch\.nn\.functional\.cross_entropy\)"),
        (nn.CrossEntropyLoss(), r"fewstep\.supervised\(torch\.nn\.CrossEntropyLoss\(\)\)"),
    ],
)
def test_losses_of_pytorch_are_refused_with_the_fix(loss: Any, told: str, name: str) -> None:
    given = {"loss": fs.mse, "inner_loss": None, name: loss}
    with pytest.raises(TypeError, match=rf"^{name} must be a function of \(model, batch\).*{told}"):
        fs.maml(SmoothNetwork(), given["loss"], 0.1, inner_loss=given["inner_loss"])


# Conflicting arguments

COLLISIONS: list[tuple[Callable[..., Any], str, Any, str]] = [
    (lambda **o: fs.maml(SmoothNetwork(), fs.mse, 0.1, **o), "rule", fs.Adam(0.1), "MetaLearner"),
    (lambda **o: fs.fomaml(SmoothNetwork(), fs.mse, 0.1, **o), "adjoint", fs.Unrolled(), r"fewstep\.maml\(adjoint="),
    (lambda **o: fs.anil(SmoothNetwork(), fs.mse, 0.1, head="head.*", **o), "adapts", "*", "head="),
    (lambda **o: fs.boil(SmoothNetwork(), fs.mse, 0.1, head="head.*", **o), "adapts", "*", "head="),
    (lambda **o: fs.meta_sgd(SmoothNetwork(), fs.mse, 0.1, **o), "rule", fs.Adam(0.1), "MetaLearner"),
    (lambda **o: fs.reptile(SmoothNetwork(), fs.mse, fs.Adam(0.1), **o), "adjoint", fs.Unrolled(), "MetaLearner"),
    (lambda **o: fs.reptile(SmoothNetwork(), fs.mse, fs.Adam(0.1), **o), "objective", fs.query_loss, "MetaLearner"),
    (lambda **o: fs.imaml(SmoothNetwork(), fs.mse, 0.1, **o), "adjoint", fs.Unrolled(), r"fewstep\.maml"),
    (lambda **o: fs.cavia(SmoothNetwork(), fs.mse, 0.1, context="scale", **o), "adapts", "*", "context="),
    (lambda **o: fs.cavia(SmoothNetwork(), fs.mse, 0.1, context="scale", **o), "learns", "*", "context"),
]


@pytest.mark.parametrize(("make", "argument", "value", "instead"), COLLISIONS)
def test_conflicting_arguments_are_refused(make: Callable[..., Any], argument: str, value: Any, instead: str) -> None:
    with pytest.raises(TypeError, match=rf"\(\) sets {argument} itself; got {argument}=.*{instead}"):
        make(**{argument: value})


def test_misspelt_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="adjiont"):
        fs.maml(SmoothNetwork(), fs.mse, 0.1, adjiont=fs.Unrolled())


# Assignments

ASSIGNED = {
    "model": nn.Linear(2, 1),
    "loss": fs.cross_entropy,
    "inner_loss": fs.cross_entropy,
    "rule": fs.GradientDescent(1.0),
    "steps": 7,
    "adapts": ["head.weight"],
    "adjoint": fs.FirstOrder(),
    "objective": fs.reptile_loss,
    "compiles": True,
}


@pytest.mark.parametrize("name", ASSIGNED)
def test_choices_cannot_be_assigned(name: str) -> None:
    learner, tasks = fs.maml(SmoothNetwork(), fs.mse, 0.3, 2), regression_tasks()
    before, held = learner.meta_loss(tasks), getattr(learner, name)
    with pytest.raises(AttributeError, match=rf"^{name} is set when a learner is made.*another MetaLearner"):
        setattr(learner, name, ASSIGNED[name])
    assert getattr(learner, name) is held
    assert torch.equal(learner.meta_loss(tasks), before)


# Truncation and a custom adjoint


@pytest.mark.parametrize("rule", [fs.GradientDescent(0.3), fs.GradientDescent(0.2, momentum=0.7), fs.Adam(0.1)])
@pytest.mark.parametrize("vectorize", [True, False])
def test_the_limits_of_truncation(rule: fs.Rule, vectorize: bool) -> None:
    net, tasks, steps = SmoothNetwork(), regression_tasks(), 3

    def gradient(adjoint: fs.Adjoint) -> dict[str, Tensor]:
        return meta_gradient(
            fs.MetaLearner(net, fs.mse, rule=rule, steps=steps, adjoint=adjoint, vectorize=vectorize), tasks
        )

    exact, first = gradient(fs.Unrolled()), gradient(fs.FirstOrder())
    assert_same(gradient(fs.Truncated(0)), first, atol=1e-13)
    assert_same(gradient(fs.Truncated(steps)), exact, atol=1e-13)
    assert_same(gradient(fs.Truncated(steps + 5)), exact, atol=1e-13)
    for last in (1, 2):
        between = gradient(fs.Truncated(last))
        assert not torch.allclose(between["model.head.weight"], exact["model.head.weight"], rtol=1e-6)
        assert not torch.allclose(between["model.head.weight"], first["model.head.weight"], rtol=1e-6)


def test_truncation_by_hand() -> None:
    """The first step is a constant displacement of θ; the second is differentiated."""
    net, task = nn.Linear(2, 1), regression_tasks(1)[0]
    came = meta_gradient(fs.maml(net, fs.mse, 0.3, 2, adjoint=fs.Truncated(1)), Task.stack([task]))
    values = list(net.parameters())

    def loss(params: list[Tensor], batch: Any) -> Tensor:
        return (F.linear(batch.x, *params) - batch.y).square().mean()

    params: list[Tensor] = list(values)
    for exact in (False, True):
        slopes = torch.autograd.grad(loss(params, task.support), params, create_graph=exact)
        params = [p - 0.3 * slope for p, slope in zip(params, slopes, strict=True)]
    expected = torch.autograd.grad(loss(params, task.query), values)
    assert_same(came, {"model.weight": expected[0], "model.bias": expected[1]}, atol=1e-13)


@pytest.mark.parametrize("last", [-1, 1.5])
def test_truncation_needs_a_whole_number(last: Any) -> None:
    with pytest.raises(ValueError, match=rf"last must be a whole number, 0 or more; got {last}"):
        fs.Truncated(last)


class EveryOther(fs.Adjoint):
    """Differentiates every other step, starting with the last one."""

    exact = False

    def __call__(
        self, loss: Any, params: dict[str, Tensor], batch: Any, rule: fs.Rule, steps: int, adapts: Any
    ) -> list[dict[str, Tensor]]:
        constant = adjoints.constant_gradient(params, batch, adapts)
        gradients = [adjoints.exact_gradient if (steps - k) % 2 else constant for k in range(steps)]
        return inner_loop(gradients, loss, params, batch, rule, adapts)


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_custom_adjoint(vectorize: bool) -> None:
    net, tasks = SmoothNetwork(), regression_tasks()
    for steps, same in ((1, fs.Unrolled()), (2, fs.Truncated(1)), (0, fs.Unrolled())):
        ours, plain = (fs.maml(net, fs.mse, 0.3, steps, adjoint=a, vectorize=vectorize) for a in (EveryOther(), same))
        assert_same(meta_gradient(ours, tasks), meta_gradient(plain, tasks), atol=1e-13)
        torch.testing.assert_close(ours.score(tasks), plain.score(tasks))


class EndsOnly(EveryOther):
    ends_only = True


def test_what_an_adjoint_does_not_support_is_refused() -> None:
    with pytest.raises(ValueError, match=r"EndsOnly differentiates the end of adaptation only"):
        fs.maml(SmoothNetwork(), fs.mse, 0.3, 2, adjoint=EndsOnly(), objective=fs.multi_step_loss((0.5, 0.5)))
    with pytest.raises(ValueError, match=r"EndsOnly gives no gradient to the rule's learned"):
        fs.meta_sgd(SmoothNetwork(), fs.mse, 0.3, 2, adjoint=EndsOnly(), adapts="head.*")
    with pytest.raises(ValueError, match=r"of which EveryOther omits terms"):
        fs.check_gradients(fs.maml(SmoothNetwork(), fs.mse, 0.3, 2, adjoint=EveryOther()), regression_tasks())

    def in_between(loss: Any, path: list[Any], task: Task) -> Tensor:
        return loss(path[1], task.query)

    with pytest.raises(ValueError, match=r"uses the loss after step 1 of 2"):
        fs.maml(SmoothNetwork(), fs.mse, 0.3, 2, adjoint=EndsOnly(), objective=in_between).meta_loss(regression_tasks())
