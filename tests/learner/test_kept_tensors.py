"""Modules that store tensors, or modify what they hold: nothing is lost, mixed up or stored on the learner."""

from __future__ import annotations

import copy
import io
import threading
import weakref
from collections import deque, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradients.checks import meta_gradient, regression_tasks
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")


class Kept(nn.Module):
    """Two layers; ``keep`` is called with the features."""

    def __init__(self, keep: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.keep = nn.Linear(2, 3), nn.Linear(3, 1), keep
        self.maps: Any = []

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        self.keep(self, h)
        return self.b(h)


KEEPS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "an attribute": lambda module, h: setattr(module, "maps", h),
    "a new list": lambda module, h: setattr(module, "maps", [h]),
    "an attribute of a part": lambda module, h: setattr(module.a, "maps", {"last": h}),
    "a list of its own": lambda module, h: module.maps.append(h),
}
KEPT = list(KEEPS)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("name", KEPT)
def test_adapting_copying_and_saving_after_training(name: str, vectorize: bool) -> None:
    learner, tasks = fs.maml(Kept(KEEPS[name]), fs.mse, 0.1, 2, vectorize=vectorize), regression_tasks()
    expected = learner.score(tasks)
    for _ in range(2):
        learner.meta_loss(tasks).backward()
    learner.zero_grad()
    adapted = learner.adapt(tasks.support[0])
    torch.testing.assert_close(fs.mse(adapted, tasks[0].query), expected[0, 2])
    torch.testing.assert_close(copy.deepcopy(learner).score(tasks), expected)
    torch.save(learner.state_dict(), io.BytesIO())
    assert learner.model.maps == []


@pytest.mark.parametrize("vectorize", [True, False])
def test_losses_read_attributes_that_the_forward_pass_set(vectorize: bool) -> None:
    """An auxiliary loss through an attribute, as in mixtures of experts."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return fs.mse(model, batch) + model.maps.square().mean()

    learner = fs.maml(Kept(KEEPS["an attribute"]), loss, 0.1, 2, vectorize=vectorize)
    assert fs.check_gradients(learner, regression_tasks(), directions=1, tolerance=1e-6).ok


class OwnScale(nn.Linear):
    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("adapts", ["1.*", "*"])
def test_attributes_that_the_loss_sets_are_used(adapts: str, vectorize: bool) -> None:
    """Also if the module's output is reused: query sets have five examples, support sets four."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        model[0].scale = 2.0 if len(batch.x) == 5 else 1.0
        return fs.mse(model, batch)

    def by_argument(model: nn.Module, batch: Batch) -> Tensor:
        scale = 2.0 if len(batch.x) == 5 else 1.0
        return fs.mse(lambda x: model[1](scale * F.linear(x, model[0].weight, model[0].bias)), batch)

    net, tasks = nn.Sequential(OwnScale(2, 3), nn.Linear(3, 1)), regression_tasks()
    came, expected = (
        meta_gradient(fs.maml(net, each, 0.1, 3, adapts=adapts, vectorize=vectorize), tasks)
        for each in (loss, by_argument)
    )
    for name, gradient in expected.items():
        torch.testing.assert_close(came[name], gradient, rtol=1e-10, atol=1e-12)


class TiedByView(nn.Module):
    """An autoencoder whose decoder is a transposed view of the encoder's weight, made once."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 3)
        self.decoder = self.encoder.weight.t()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encoder(x)), self.decoder)


def test_a_kept_view_of_a_parameter_follows_it_or_is_refused() -> None:
    net, support = TiedByView(), Batch(torch.randn(4, 2), torch.randn(4, 2))
    learner = fs.maml(net, fs.mse, 0.1)
    try:
        adapted = learner.adapt(support)
    except ValueError as error:
        assert "decoder" in str(error)  # noqa: PT017
        return
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    fs.mse(net, support).backward()
    optimizer.step()
    torch.testing.assert_close(adapted.encoder.weight, net.encoder.weight)


def test_weights_that_hooks_compute_before_forward() -> None:
    """Pruning stores the weight as an attribute, which a hook sets in each forward pass."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    prune.l1_unstructured(net[0], "weight", 0.4)
    learner = fs.maml(net, fs.mse, 0.1, 2)
    check = fs.check_gradients(learner, regression_tasks(), directions=1, tolerance=1e-6)
    assert check.ok, check
    adapted = learner.adapt(regression_tasks().support[0])
    adapted(torch.randn(1, 2))
    assert torch.equal(adapted[0].weight == 0, net[0].weight_mask == 0)


# What cannot be supported is refused


class Holding(nn.Module):
    """Refers to its layer through ``held``."""

    def __init__(self, hold: Callable[[nn.Module], Any], layer_of: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self.layer, self.layer_of = nn.Linear(2, 1), layer_of
        self.held = hold(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer_of(self.held)(x)


Pair = namedtuple("Pair", ["name", "layer"])
HOLDS: dict[str, tuple[Callable[[nn.Module], Any], Callable[[Any], nn.Module]]] = {
    "named tuple": (lambda layer: Pair("a", layer), lambda held: held.layer),
    "deque": (lambda layer: deque([layer]), lambda held: held[0]),
    "weak reference": (weakref.ref, lambda held: held()),
}


@pytest.mark.parametrize("name", HOLDS)
def test_modules_in_other_containers_are_right_or_refused(name: str) -> None:
    net, tasks = Holding(*HOLDS[name]), regression_tasks()
    try:
        came = fs.maml(net, fs.mse, 0.1).meta_loss(tasks)
    except ValueError as error:
        assert "computes with the parameter layer." in str(error)  # noqa: PT017
        return
    torch.testing.assert_close(came, fs.maml(net.layer, fs.mse, 0.1).meta_loss(tasks))


def test_training_in_several_threads_equals_training_in_one() -> None:
    learner = fs.anil(Kept(KEEPS["an attribute"]), fs.mse, 0.1, 3, head="b.*", vectorize=False)
    batches = [regression_tasks() for _ in range(3)]
    expected = [learner.meta_loss(tasks).item() for tasks in batches]
    found: list[list[float]] = [[] for _ in batches]
    start = threading.Barrier(len(batches))

    def work(place: int, tasks: Task) -> None:
        start.wait()
        found[place].extend(learner.meta_loss(tasks).item() for _ in range(5))

    threads = [threading.Thread(target=work, args=each) for each in enumerate(batches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for came, right in zip(found, expected, strict=True):
        assert came == pytest.approx([right] * 5, rel=1e-12)
