"""Outputs that the inner loop does not change are computed once, and nothing else changes."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep.learner.reuse import UnadaptedModules

pytestmark = pytest.mark.usefixtures("double")


class Counted(nn.Linear):
    """Counts how often it is evaluated."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return super().forward(x)


class AddsInPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


def network(*between: nn.Module) -> nn.Sequential:
    Counted.calls = 0
    return nn.Sequential(Counted(1, 6), *(between or (nn.Tanh(),)), nn.Linear(6, 1))


def learner(model: nn.Module, adjoint: fs.Adjoint, vectorize: bool, head: str = "2.*") -> fs.MetaLearner:
    rule = fs.GradientDescent(0.1)
    return fs.MetaLearner(model, fs.mse, rule=rule, steps=4, adapts=head, adjoint=adjoint, vectorize=vectorize)


def tasks() -> fs.tasks.Task:
    return fs.tasks.Sinusoids(shots=5).sample(3).to(torch.float64)


def meta_gradient(made: fs.MetaLearner, batch: fs.tasks.Task) -> list[Tensor]:
    made.zero_grad()
    made.meta_loss(batch).backward()
    return [value.grad.clone() for value in made.parameters() if value.grad is not None]


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder(), fs.Implicit(2.0)])
@pytest.mark.parametrize("between", [nn.Tanh(), nn.ReLU(inplace=True), AddsInPlace()])
def test_the_meta_gradient_is_the_same(
    adjoint: fs.Adjoint, vectorize: bool, between: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = tasks()
    model = network(between, nn.Tanh())
    reused = meta_gradient(learner(model, adjoint, vectorize, "3.*"), batch)
    monkeypatch.setattr(UnadaptedModules, "reusing", lambda self: nullcontext())
    plain = meta_gradient(learner(model, adjoint, vectorize, "3.*"), batch)
    assert len(reused) == len(plain) == 4
    for ours, expected in zip(reused, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.FirstOrder()])
def test_the_body_of_anil_is_evaluated_once_per_set(adjoint: fs.Adjoint) -> None:
    made, batch = learner(network(), adjoint, vectorize=True), tasks()
    made.meta_loss(batch)
    Counted.calls = 0
    made.meta_loss(batch)
    assert Counted.calls == 2
    Counted.calls = 0
    made.score(batch, steps=10)
    assert Counted.calls == 2
    Counted.calls = 0
    made.adapt(batch[0].support, steps=10)
    assert Counted.calls == 1


def test_adapted_modules_are_evaluated_at_every_step() -> None:
    made, batch = learner(network(), fs.Unrolled(), vectorize=True, head="*"), tasks()
    made.meta_loss(batch)
    Counted.calls = 0
    made.meta_loss(batch)
    assert Counted.calls == 5


def test_a_module_whose_inputs_change_is_not_reused() -> None:
    model = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), Counted(6, 1))
    made, batch = learner(model, fs.Unrolled(), vectorize=True, head="0.*"), tasks()
    made.meta_loss(batch)
    Counted.calls = 0
    made.meta_loss(batch)
    assert Counted.calls == 5
    assert "forward" not in vars(made.model[2])


def test_dropout_is_drawn_at_every_step() -> None:
    made, batch = learner(network(nn.Dropout(0.5)), fs.Unrolled(), vectorize=True), tasks()
    made.meta_loss(batch)
    Counted.calls = 0
    made.meta_loss(batch)
    assert Counted.calls == 5


def test_per_step_norms_are_evaluated_at_every_step() -> None:
    body = nn.Sequential(nn.Linear(1, 6), fs.models.PerStepNorm(6, steps=4))
    with torch.no_grad():
        body[1].weight.copy_(torch.rand(4, 6))
    made = fs.anil(nn.Sequential(body, nn.Linear(6, 1)), fs.mse, 0.1, steps=4, head="1.*")
    made.meta_loss(tasks()).backward()
    assert (made.model[0][1].weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_body_normalised_by_the_support_set_goes_through_each_set_once(
    vectorize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = tasks()
    model = network(nn.Tanh(), fs.models.SupportNorm(6))
    made = learner(model, fs.Unrolled(), vectorize, head="3.*")
    expected = meta_gradient(made, batch)
    scores = made.score(batch, steps=10)
    Counted.calls = 0
    again = made.score(batch, steps=10)
    each = 1 if vectorize else len(batch)
    assert Counted.calls == 3 * each  # adaptation; the statistics of the support set; the query set
    torch.testing.assert_close(again, scores)
    Counted.calls = 0
    torch.testing.assert_close(meta_gradient(made, batch), expected)
    assert Counted.calls == 3 * each
    monkeypatch.setattr(UnadaptedModules, "reusing", lambda self: nullcontext())
    plain = learner(model, fs.Unrolled(), vectorize, head="3.*")
    torch.testing.assert_close(meta_gradient(plain, batch), expected)
    torch.testing.assert_close(plain.score(batch, steps=10), scores)


def test_a_failing_step_does_not_change_the_model() -> None:
    made, batch = learner(network(), fs.Unrolled(), vectorize=False), tasks()
    made.meta_loss(batch)
    with pytest.raises(RuntimeError, match="shapes"):
        made.adapt(fs.tasks.Batch(torch.rand(5, 2), torch.rand(5, 1)), steps=3)
    assert not any("forward" in vars(module) for module in made.model.modules())
