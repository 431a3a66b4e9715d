"""``check_gradients`` says what is correct, what is wrong and where, and what it cannot decide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradients.checks import SmoothNetwork, regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.tasks import Batch, Task


class ConstantSlope(torch.autograd.Function):
    """x², whose derivative 2x is a constant for autograd: its second derivative is missing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x.detach()
        return x.square()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return 2 * ctx.x * cotangent


class Squares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ConstantSlope.apply(x)


def wrong_network() -> nn.Module:
    net = nn.Sequential()
    net.body, net.square, net.head = nn.Linear(2, 3), Squares(), nn.Linear(3, 1)
    return net


def test_right() -> None:
    learner = fs.maml(SmoothNetwork().double(), fs.mse, 0.3, 2)
    check = fs.check_gradients(learner, regression_tasks().to(torch.float64), tolerance=1e-7)
    assert (check.ok, check.wrong, check.unclear) == (True, [], [])
    assert [group.name for group in check.groups] == ["model.first", "model.second", "model.head"]
    for group in check.groups:
        assert len(group.found) == len(group.expected) == 2
        assert group.found == pytest.approx(group.expected, rel=1e-6)
        assert all(abs(found) > 1e-6 for found in group.found)
    lines = str(check).splitlines()
    assert len(lines) == 3
    assert all(line.endswith("right") for line in lines)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()], ids=repr)
def test_wrong_derivatives_are_located(adjoint: fs.Adjoint) -> None:
    learner = fs.maml(wrong_network(), fs.mse, 0.2, 2, adjoint=adjoint, vectorize=False)
    check = fs.check_gradients(learner, regression_tasks())
    assert not check.ok
    assert "model.body" in check.wrong
    assert "WRONG" in str(check).splitlines()[0]
    assert max(group.error for group in check.groups) > 1e-2


def test_wrong_derivatives_of_unadapted_modules_do_not_matter() -> None:
    """A missing second derivative does not matter if only the first one is needed."""
    assert fs.check_gradients(fs.maml(wrong_network(), fs.mse, 0.2, 0, vectorize=False), regression_tasks()).ok


class Rounded(nn.Module):
    """A staircase plus a straight line; autograd ignores the jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return self.head(h + 1e-3 * (h * 1e6).floor())


def test_not_smooth() -> None:
    check = fs.check_gradients(fs.maml(Rounded(), fs.mse, 0.01), regression_tasks())
    assert "model.layer" in check.unclear
    assert "model.layer" not in check.wrong
    assert str(check).splitlines()[0].endswith("not smooth")


def test_inexact_adjoints_are_refused() -> None:
    for adjoint in (fs.FirstOrder(), fs.Truncated(1), fs.Implicit()):
        name = type(adjoint).__name__
        with pytest.raises(ValueError, match=rf"{name} omits terms by design.*adjoint=fewstep\.Unrolled\(\)"):
            fs.check_gradients(fs.maml(SmoothNetwork(), fs.mse, 0.1, 2, adjoint=adjoint), regression_tasks())


def test_a_meta_loss_in_single_precision_is_refused() -> None:
    def rounded(model: nn.Module, batch: Batch) -> Tensor:
        return fs.mse(model, batch).float()

    with pytest.raises(ValueError, match=r"meta-loss is torch\.float32.*\.float\(\)"):
        fs.check_gradients(fs.maml(SmoothNetwork(), rounded, 0.1), regression_tasks())


@pytest.mark.parametrize("mode", [True, False])
def test_the_learner_does_not_change(mode: bool) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.3), nn.Linear(3, 1))
    learner, tasks = fs.maml(net, fs.mse, 0.1, 2, compile="record").train(mode), regression_tasks()
    learner.meta_loss(tasks).backward()
    values = [(value, value.clone(), value.grad.clone()) for value in learner.parameters()]
    random = torch.get_rng_state()
    assert fs.check_gradients(learner, tasks).ok
    assert torch.equal(torch.get_rng_state(), random)
    for (value, before, slope), now in zip(values, learner.parameters(), strict=True):
        assert now is value
        assert now.dtype == torch.float32
        assert torch.equal(now, before)
        assert torch.equal(now.grad, slope)
    assert learner.training == mode
    assert tasks.support.x.dtype == torch.float32
    assert learner.compiles == "record"


def test_rates_and_losses_are_checked_too() -> None:
    class LearnedLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.7))

        def forward(self, model: nn.Module, batch: Batch) -> Tensor:
            return self.weight * fs.mse(model, batch)

    learner = fs.meta_sgd(SmoothNetwork(), fs.mse, 0.3, 2, inner_loss=LearnedLoss())
    check = fs.check_gradients(learner, regression_tasks())
    assert check.ok, check
    names = [group.name for group in check.groups]
    assert "inner_loss" in names
    assert any(name.startswith("rule") for name in names)


def test_complex_parameters() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.phase = nn.Parameter(torch.randn(2, dtype=torch.complex64))
            self.head = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.phase * torch.exp(1j * x)).real)

    check = fs.check_gradients(fs.maml(Complex(), fs.mse, 0.3, 2), regression_tasks(), tolerance=1e-7)
    assert check.ok, check
    assert all(abs(found) > 1e-6 for group in check.groups for found in group.found)


def test_the_seed_chooses_the_directions() -> None:
    learner, tasks = fs.maml(SmoothNetwork(), fs.mse, 0.3), regression_tasks()
    first, again, other = (fs.check_gradients(learner, tasks, seed=seed).groups for seed in (0, 0, 1))
    assert first == again
    assert first[0].found != other[0].found
    assert len(fs.check_gradients(learner, tasks, directions=3).groups[0].found) == 3


def test_a_list_of_tasks() -> None:
    tasks = [regression_tasks(1, shots)[0] for shots in (2, 5)]
    assert all(isinstance(task, Task) for task in tasks)
    assert fs.check_gradients(fs.maml(SmoothNetwork(), fs.mse, 0.3, 2), tasks, tolerance=1e-7).ok
