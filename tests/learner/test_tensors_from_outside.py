"""Tensors that a loss or a rule takes from a closure, or that are in the tasks more than once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradients.checks import regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")

WAYS: dict[str, dict[str, Any]] = {
    "vmap": {"vectorize": True},
    "loop": {"vectorize": False},
    "chunks": {"vectorize": True, "chunk": 2},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def by_hand(x: Tensor, ys: list[Tensor]) -> Tensor:
    """The mean over tasks of the loss after one step, each task with the same inputs in both sets."""
    net, total = network(), torch.zeros(())
    params = dict(net.named_parameters())
    for y in ys:
        loss = (torch.func.functional_call(net, params, x) - y).square().mean()
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        moved = {n: p - 0.1 * g for (n, p), g in zip(params.items(), grads, strict=True)}
        total = total + (torch.func.functional_call(net, moved, x) - y).square().mean() / len(ys)
    return total


def test_a_tensor_that_is_in_several_tasks_gets_its_gradient_once() -> None:
    x, ys = torch.randn(4, 2, requires_grad=True), [torch.randn(4, 1) for _ in range(3)]
    (expected,) = torch.autograd.grad(by_hand(x, ys), x)
    tasks = [Task(Batch(x, y), Batch(x, y)) for y in ys]
    (found,) = torch.autograd.grad(fs.maml(network(), fs.mse, 0.1).meta_loss(tasks), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("way", WAYS)
def test_one_tensor_in_both_sets(way: str) -> None:
    x, y = torch.randn(3, 4, 2, requires_grad=True), torch.randn(3, 4, 1)
    (expected,) = torch.autograd.grad(sum(by_hand(x[i], [y[i]]) for i in range(3)) / 3, x)
    loss = fs.maml(network(), fs.mse, 0.1, **WAYS[way]).meta_loss(Task(Batch(x, y), Batch(x, y)))
    (found,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(found, expected)


TAKEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "as it is": lambda w, x: w,
    "to": lambda w, x: w.to(x),
    "contiguous": lambda w, x: w.contiguous(),
}


def weighted(weight: Callable[[], Tensor], taken: str) -> Callable[[nn.Module, Batch], Tensor]:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return ((model(batch.x) - batch.y).square().mean(1) * TAKEN[taken](weight(), batch.x)[: len(batch.x)]).mean()

    return loss


@pytest.mark.parametrize("taken", TAKEN)
@pytest.mark.parametrize("way", WAYS)
def test_a_closure_tensor_gets_its_gradient_in_every_iteration(way: str, taken: str) -> None:
    """Also if the tensor is a different one in each iteration, as in learning to reweight."""
    held, tasks, found = [], regression_tasks(), []
    for options in WAYS[way], WAYS["vmap"]:
        learner = fs.maml(network(), weighted(lambda: held[-1], taken), 0.1, **options)
        for seed in range(2):
            torch.manual_seed(seed)
            held.append(torch.rand(5, requires_grad=True))
            learner.meta_loss(tasks).backward()
            found.append(held[-1].grad)
    torch.testing.assert_close(found[:2], found[2:])
    assert found[1].abs().max() > 1e-3


@pytest.mark.parametrize("taken", TAKEN)
@pytest.mark.parametrize("options", [{"adjoint": fs.Recomputed()}, {"compile": True}], ids=["recomputed", "compiled"])
def test_a_closure_tensor_is_refused_if_it_would_be_a_constant(options: dict[str, Any], taken: str) -> None:
    weight = torch.rand(5, requires_grad=True)
    with pytest.raises(ValueError, match=r"tensor of shape \(5,\).*requires a gradient"):
        fs.maml(network(), weighted(lambda: weight, taken), 0.1, **options).meta_gradient(regression_tasks())


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_rate_in_a_closure(vectorize: bool) -> None:
    rate, tasks = torch.tensor(0.1, requires_grad=True), regression_tasks()
    learner = fs.MetaLearner(network(), fs.mse, rule=fs.SGD(lambda step: rate), steps=2, vectorize=vectorize)
    (found,) = torch.autograd.grad(learner.meta_loss(tasks), rate)
    ends = [fs.maml(network(), fs.mse, 0.1 + d, 2).meta_loss(tasks).item() for d in (1e-5, -1e-5)]
    torch.testing.assert_close(found.item(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed("forward")], ids=repr)
def test_requiring_a_gradient_of_the_data_is_refused(adjoint: fs.Adjoint) -> None:
    def physics(model: nn.Module, batch: Batch) -> Tensor:
        x = batch.x.requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return slope.square().mean()

    with pytest.raises(ValueError, match=r"requires_grad_\(\) on the data.*batch\.x\.detach\(\)\.requires_grad_"):
        fs.maml(network(), physics, 0.1, adjoint=adjoint, vectorize=False).meta_loss(regression_tasks())


class WritesToLarge(nn.Module):
    """Writes to its input if that is large, as for one graph of many."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mul_(2) if len(x) > 4 else x)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.FirstOrder()], ids=repr)
def test_every_kind_of_task_in_a_list_is_checked(adjoint: fs.Adjoint) -> None:
    tasks = [
        Task(Batch(torch.randn(n, 2), torch.randn(n, 1)), Batch(torch.randn(3, 2), torch.randn(3, 1))) for n in (4, 6)
    ]
    learner = fs.maml(WritesToLarge(), fs.mse, 0.1, adjoint=adjoint)
    before = tasks[1].support.x.clone()
    for look in learner.score, learner.meta_loss:
        with pytest.raises(ValueError, match="writes to its input"):
            look(tasks)
    assert torch.equal(tasks[1].support.x, before)


def test_padding_in_a_later_task_of_a_list_is_checked() -> None:
    def unweighted(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch.x) - batch.y).square().mean()

    def batch(weight: Tensor | None) -> Batch:
        return Batch(torch.randn(4, 2), torch.randn(4, 1), weight)

    tasks = [Task(batch(None), batch(None)), Task(batch(torch.tensor([1.0, 1, 1, 0])), batch(None))]
    with pytest.raises(ValueError, match="Padded examples"):
        fs.maml(network(), unweighted, 0.1).meta_loss(tasks)


def test_dropout_in_a_later_task_of_a_list_is_noticed() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.calls = nn.Linear(2, 3), nn.Linear(3, 1), []

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x)
            return self.head(nn.functional.dropout(h, 0.5) if len(x) > 4 else h)

    tasks = [
        Task(Batch(torch.randn(n, 2), torch.randn(n, 1)), Batch(torch.randn(n, 2), torch.randn(n, 1))) for n in (3, 6)
    ]
    learner = fs.anil(Sometimes(), fs.mse, 0.1, 2, head="head.*")
    learner.meta_loss(tasks)
    masks = torch.stack([learner.meta_loss(tasks).detach() for _ in range(3)])
    assert masks.unique().numel() == 3
