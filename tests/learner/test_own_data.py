"""Users' data: without targets, in other containers, in lists, together with strings and numbers."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from gradients.checks import SmoothNetwork, assert_same, meta_gradient, regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.tasks import Batch, Task
from fewstep.tasks.batch import cast_like

pytestmark = pytest.mark.usefixtures("double")

WAYS: dict[str, dict[str, Any]] = {
    "vmap": {"vectorize": True},
    "chunks": {"vectorize": True, "chunk": 2},
    "loop": {"vectorize": False},
}


class Encoding(UserDict):
    """Like the result of a tokenizer: attributes in addition to the data."""

    encodings = None


@dataclass
class Example:
    x: Tensor
    y: Tensor
    name: str = "an example"


@dataclass(frozen=True)
class FrozenExample:
    x: Tensor
    y: Tensor
    scale: float = 1.0


Pair = namedtuple("Pair", ["x", "y"])

CONTAINERS: dict[str, Any] = {
    "dict": (lambda x, y: {"x": x, "y": y}, lambda b: (b["x"], b["y"])),
    "OrderedDict": (lambda x, y: OrderedDict(x=x, y=y), lambda b: (b["x"], b["y"])),
    "UserDict": (lambda x, y: Encoding(x=x, y=y), lambda b: (b["x"], b["y"])),
    "dataclass": (Example, lambda b: (b.x, b.y)),
    "frozen dataclass": (FrozenExample, lambda b: (b.x, b.y)),
    "named tuple": (Pair, lambda b: (b.x, b.y)),
    "tuple": (lambda x, y: (x, y), lambda b: b),
    "strings and numbers beside tensors": (
        lambda x, y: {"x": x, "y": y, "name": "sine", "scale": 1.0, "none": None},
        lambda b: (b["scale"] * b["x"], b["y"]) if b["name"] == "sine" and b["none"] is None else (),
    ),
    "batch of a mapping": (lambda x, y: Batch(Encoding(ids=x, kind="text"), y), lambda b: (b.x["ids"], b.y)),
    "batch without targets": (lambda x, y: Batch({"x": x, "y": y}), lambda b: (b.x["x"], b.x["y"])),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_give_the_same_result_as_a_batch(name: str, way: str) -> None:
    make, opened = CONTAINERS[name]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        x, y = opened(batch)
        return (model(x) - y).square().mean()

    tasks, net = regression_tasks(), SmoothNetwork()
    ours = Task(*(make(b.x, b.y) for b in (tasks.support, tasks.query)))
    plain, own = fs.maml(net, fs.mse, 0.3, 2), fs.maml(net, loss, 0.3, 2, **WAYS[way])
    assert_same(meta_gradient(own, ours), meta_gradient(plain, tasks), atol=1e-12)
    torch.testing.assert_close(own.score(ours), plain.score(tasks))
    came, expected = own.adapt(ours[1].support), plain.adapt(tasks[1].support)
    torch.testing.assert_close(came(tasks.query.x), expected(tasks.query.x))
    assert type(ours[0].support) is type(ours.support)
    assert len(ours) == 3
    assert {leaf.dtype for leaf in fs.tasks.trees.tensors(ours.to(torch.float32))} == {torch.float32}


def test_tasks_without_targets() -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        assert batch.y is None
        return model(batch.x).square().mean()

    tasks = Task(Batch(torch.randn(3, 4, 2), None), Batch(torch.randn(3, 5, 2)))
    for options in WAYS.values():
        assert fs.check_gradients(fs.maml(SmoothNetwork(), loss, 0.1, 2, **options), tasks, directions=1).ok
    stacked = Task.stack([tasks[0], tasks[1]])
    assert stacked.support.y is None
    assert torch.equal(stacked.support.x, tasks.support.x[:2])


def test_a_mapping_that_cannot_be_rebuilt_is_refused() -> None:
    tasks = Task(*(MappingProxyType({"x": torch.randn(2, 3, 2)}) for _ in range(2)))
    assert isinstance(tasks[0].support, MappingProxyType)

    class Odd(UserDict):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(x=torch.randn(2, 3, 2))

    assert tasks[0].support["x"].shape == (3, 2)
    assert Task(Odd(1, 2), None)[0].support["x"].shape == (3, 2)


# Lists of tasks


def unlike() -> list[Task]:
    """Tasks whose examples differ in number, and graphs in dictionaries that differ in shape."""
    return [regression_tasks(1, shots, queries)[0] for shots, queries in ((2, 5), (4, 3), (6, 6))]


def test_a_list_of_tasks_is_the_mean_over_single_tasks() -> None:
    learner, tasks = fs.maml(SmoothNetwork(), fs.mse, 0.3, 2), unlike()
    came = meta_gradient(learner, tasks)
    single = [meta_gradient(learner, Task.stack([task])) for task in tasks]
    assert_same(came, {name: torch.stack([g[name] for g in single]).mean(0) for name in came}, atol=1e-14)
    losses = torch.stack([learner.meta_loss(Task.stack([task])) for task in tasks])
    torch.testing.assert_close(learner.meta_loss(tasks), losses.mean())
    scores = torch.cat([learner.score(Task.stack([task])) for task in tasks])
    torch.testing.assert_close(learner.score(tasks), scores)
    assert fs.check_gradients(learner, tasks, directions=1).ok


def test_a_list_of_graphs() -> None:
    def graph(nodes: int) -> dict[str, Tensor]:
        return {"x": torch.randn(nodes, 2), "links": torch.rand(nodes, nodes), "y": torch.randn(())}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return (model(batch["links"] @ batch["x"]).mean() - batch["y"]).square()

    tasks = [Task(graph(3), graph(5)), Task(graph(2), graph(4))]
    learner = fs.maml(SmoothNetwork(), loss, 0.1, 2)
    assert fs.check_gradients(learner, tasks, directions=1).ok
    alone = torch.stack([learner.meta_loss([task]) for task in tasks])
    torch.testing.assert_close(learner.meta_loss(tasks), alone.mean())
    with pytest.raises((ValueError, RuntimeError), match="[Ss]tack|same"):
        Task.stack(tasks)


# Parts of a support set


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_parts_of_padded_sets_equal_those_of_unpadded_sets(size: int, way: str) -> None:
    tasks = [regression_tasks(1, shots, 4)[0] for shots in (2, 9, 5)]
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.3, 5, inner_batch=size, **WAYS[way])
    padded = Task.stack(tasks)
    assert padded.support.weight is not None
    assert_same(meta_gradient(learner, padded), meta_gradient(learner, tasks), atol=1e-12)


def test_parts_by_hand() -> None:
    """Steps 0 and 1 of four examples in parts of two use 0, 2 and 1, 3."""
    task, net = regression_tasks(1, 4, 5)[0], nn.Linear(2, 1)
    adapted = fs.maml(net, fs.mse, 0.1, 2, inner_batch=2).adapt(task.support)
    with torch.enable_grad():
        for share in (slice(0, None, 2), slice(1, None, 2)):
            slopes = torch.autograd.grad(fs.mse(net, task.support[share]), list(net.parameters()))
            with torch.no_grad():
                for value, slope in zip(net.parameters(), slopes, strict=True):
                    value.sub_(0.1 * slope)
    torch.testing.assert_close(adapted.weight, net.weight)


# Precision


def precisions(*parameters: Tensor) -> list[torch.dtype]:
    made = {"real": torch.zeros(2), "whole": torch.zeros(2, dtype=torch.int64), "complex": torch.zeros(2) + 0j}
    return [tensor.dtype for tensor in cast_like(made, parameters).values()]


def parameter(dtype: torch.dtype, learned: bool = True) -> nn.Parameter:
    return nn.Parameter(torch.zeros(2, dtype=dtype), requires_grad=learned)


def test_precision_of_the_data() -> None:
    f64, f32, bf16, i64 = torch.float64, torch.float32, torch.bfloat16, torch.int64
    c128, c64 = torch.complex128, torch.complex64
    assert precisions(parameter(f64)) == [f64, i64, c128]
    assert precisions(parameter(f32)) == [f32, i64, c64]
    assert precisions(parameter(bf16, False), parameter(f64)) == [f64, i64, c128]
    assert precisions(parameter(bf16, False), parameter(f32)) == [f32, i64, c64]
    assert precisions(parameter(c128), parameter(f64)) == [f64, i64, c128]
    assert precisions(parameter(c64)) == [f32, i64, c64]
    assert precisions() == [f64, i64, c128]


def test_data_that_fit_are_not_copied() -> None:
    tasks = regression_tasks()
    assert cast_like(tasks, SmoothNetwork().parameters()) is tasks


# Arrays


def test_arrays_keep_their_values() -> None:
    """Token ids above 255 and negative features are not changed; sorted by class."""
    tokens = np.array([[300, 1], [2, 70_000], [5, 6]])
    made = fs.datasets.from_arrays(tokens, ["b", "a", "b"])
    assert made.classes == ["a", "b"]
    assert made.images.tolist() == [[2, 70_000], [300, 1], [5, 6]]
    features = torch.randn(6, 3)
    of_features = fs.datasets.from_arrays(features, torch.tensor([1, 0, 1, 0, 1, 0]), classes=["even", "odd"])
    assert torch.equal(of_features.images, features[[1, 3, 5, 0, 2, 4]])
    assert of_features.classes == ["even", "odd"]
    assert fs.datasets.from_arrays(np.full((2, 3), 200, np.uint8), [0, 1]).images.tolist() == [[200] * 3] * 2


def test_episodes_of_arrays_keep_their_values() -> None:
    x = torch.arange(24).view(12, 2) + 1000
    source = fs.tasks.Episodes(fs.datasets.from_arrays(x, [i // 4 for i in range(12)]), ways=2, shots=2, queries=2)
    episodes = source.sample(3, torch.Generator().manual_seed(0))
    assert episodes.support.x.dtype == torch.int64
    for ids in episodes.support.x.reshape(-1, 2):
        assert any(torch.equal(ids, row) for row in x)


@pytest.mark.parametrize(
    ("x", "y", "options", "words"),
    [
        (np.zeros((3, 2)), [0, 1], {}, r"x must be \[examples, \.\.\.\].*got \(3, 2\) and \(2,\)"),
        (np.zeros((0, 2)), [], {}, r"got \(0, 2\)"),
        (np.zeros((2, 2)), [0.5, 1.5], {}, r"labels must be integers or strings; got an array of float64"),
        (np.zeros((2, 2)), [0, 1], {"classes": ["a"]}, r"2 labels need as many names; got 1"),
    ],
)
def test_invalid_arrays_are_refused(x: Any, y: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fs.datasets.from_arrays(x, y, **options)
