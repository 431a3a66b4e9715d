"""Tasks from a list of (x, y)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.tasks import TaskList


def lines(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Task i has the value i in all of its inputs, and its examples are numbered."""
    return [(torch.full((n, 2), float(i)), torch.arange(float(n))[:, None]) for i, n in enumerate(sizes)]


def test_every_example_is_in_one_set() -> None:
    source = TaskList(lines(5, 7, 9), shots=2)
    tasks = source.sample(3)
    assert sorted(tasks.support.x[:, 0, 0].tolist()) == [0, 1, 2]  # each task once
    for i in range(3):
        size = (5, 7, 9)[int(tasks.support.x[i, 0, 0])]
        present = tasks.query.weight[i] == 1
        seen = torch.cat([tasks.support.y[i], tasks.query.y[i][present]]).flatten().tolist()
        assert sorted(seen) == list(range(size))


def test_data_may_be_any_iterable() -> None:
    assert len(TaskList((pair for pair in lines(5, 6)), shots=2)) == 2


def test_draws_are_a_function_of_the_generator() -> None:
    source = TaskList(lines(8, 8, 8), shots=3, queries=4)
    first, again, other = (source.sample(2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.support.y, again.support.y)
    assert not torch.equal(first.support.y, other.support.y)
    assert first.query.weight is None
    assert source.sample(7).query.x.shape == (7, 4, 2)  # more tasks than there are
    assert len(source) == 3


def test_tasks_of_unequal_sizes_train_alike_as_a_list_and_stacked() -> None:
    data = [(torch.rand(n, 2), torch.rand(n, 1)) for n in (5, 7, 9)]
    learner = fs.maml(nn.Linear(2, 1), fs.mse, 0.1)
    losses = [
        learner.meta_loss(TaskList(data, 3, stacked=stacked).sample(3, torch.Generator().manual_seed(0)))
        for stacked in (True, False)
    ]
    torch.testing.assert_close(*losses)
    for stacked in (True, False):
        source = TaskList(data, 3, stacked=stacked)
        fs.fit(learner, source, torch.optim.Adam(learner.parameters()), iterations=2, meta_batch=2)
        assert fs.evaluate(learner, source, num_tasks=3).values.shape == (3, 2)


def test_arrays_and_data_frames_become_tensors() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"group": ["a"] * 4 + ["b"] * 6, "x": np.arange(10.0), "y": range(10)})
    data = [(group[["x"]], group["y"]) for _, group in frame.groupby("group")]
    tasks = TaskList(data, shots=2, queries=2).sample(2)
    assert (tasks.support.x.shape, tasks.support.x.dtype) == ((2, 2, 1), torch.float32)
    assert (tasks.query.y.shape, tasks.query.y.dtype) == ((2, 2), torch.int64)
    assert torch.equal(tasks.query.x[..., 0].long(), tasks.query.y)


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        ([], {}, ValueError, "the list of tasks is empty"),
        (lines(5), {"shots": 0}, ValueError, "shots must be at least 1; got 0"),
        (lines(5), {"queries": 0}, ValueError, "queries must be at least 1"),
        (lines(5, 2), {"shots": 2}, ValueError, "at least one query need 3 examples; task 1 has 2"),
        (lines(5, 9), {"shots": 2, "queries": 4}, ValueError, "2 shots and 4 queries need 6 examples; task 0 has 5"),
        ({"a": lines(5)[0]}, {}, TypeError, r"must be a list with one pair \(x, y\) per task; got dict"),
        (torch.rand(4, 2), {}, TypeError, "got Tensor"),
        (3, {}, TypeError, "got int"),
        ([fs.Task(fs.Batch(*lines(5)[0]), None)], {}, TypeError, r"task 0 is a Task, which has both.*learner.score"),
        ([torch.rand(3)], {}, TypeError, r"task 0 must be a pair \(x, y\); got Tensor"),
        ([(torch.rand(3, 1), torch.rand(4, 1))], {}, ValueError, "task 0 has 3 examples in x and 4 in y"),
        ([(1.0, 2.0)], {}, TypeError, r"must be \[examples, ...\]; got a scalar"),
        ([(np.array(["a", None]), np.zeros(2))], {}, TypeError, "must hold numbers"),
    ],
)
def test_mistakes_are_refused(data: Any, options: dict[str, int], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        TaskList(data, **{"shots": 1, **options})
