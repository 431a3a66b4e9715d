"""Two processes that share a meta-batch compute what one computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import parallel
from fewstep.tasks import Batch, Sinusoids, Task


class Net(nn.Module):
    def __init__(self, norm: str = "none") -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.unused = nn.Parameter(torch.ones(2))
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class LearnedLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.scale * (prediction - target).square().mean()


def carried(net: nn.Module) -> Any:
    return fs.reptile(net, fs.mse, rule=fs.CarriedAdam(net.named_parameters(), 0.02), steps=3)


LEARNERS: dict[str, Any] = {
    "maml": lambda: fs.maml(Net(), fs.mse, inner_lr=0.05, steps=2),
    "loop": lambda: fs.maml(Net(), fs.mse, inner_lr=0.05, steps=2, vectorize=False),
    "chunks": lambda: fs.maml(Net(), fs.mse, inner_lr=0.05, steps=2, chunk=2),
    "maml-1": lambda: fs.maml(Net(), fs.mse, inner_lr=0.05),
    "compiled": lambda: fs.maml(Net(), fs.mse, inner_lr=0.05, steps=1, compile=True),
    "fomaml": lambda: fs.fomaml(Net(), fs.mse, inner_lr=0.05, steps=2),
    "recomputed": lambda: fs.maml(Net(), fs.mse, inner_lr=0.05, steps=2, adjoint=fs.Recomputed()),
    "imaml": lambda: fs.imaml(Net(), fs.mse, inner_lr=0.05, steps=3),
    "anil": lambda: fs.anil(Net(), fs.mse, head="head.*", inner_lr=0.05, steps=2),
    "meta-sgd": lambda: fs.meta_sgd(Net(), fs.mse, inner_lr=0.05, steps=2),
    "reptile": lambda: fs.reptile(Net(), fs.mse, rule=fs.Adam(0.02), steps=3),
    "learned loss": lambda: fs.maml(Net(), fs.mse, inner_lr=0.05, inner_loss=fs.supervised(LearnedLoss())),
    "running norm": lambda: fs.maml(
        nn.Sequential(nn.Linear(1, 6), fs.models.RunningNorm(6), nn.Linear(6, 1)), fs.mse, inner_lr=0.05
    ),
    "carried": lambda: carried(Net()),
    "multi-step": lambda: fs.maml(Net(), fs.mse, inner_lr=0.05, steps=2, objective=fs.multi_step_loss((0.3, 0.7))),
}


def tasks_of(count: int) -> Task:
    return Sinusoids(shots=4, queries=6).sample(count, torch.Generator().manual_seed(count))


def gradients(name: str, count: int, dtype: torch.dtype, shared: bool) -> dict[str, Any]:
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        learner, tasks = LEARNERS[name](), tasks_of(count).to(dtype)
        context = parallel.together() if shared else parallel.alone()
        with context as processes:
            assert not shared or processes.size == 2
            before = torch.get_rng_state()
            loss = learner.meta_gradient(tasks)
            assert torch.equal(before, torch.get_rng_state())
            scores = learner.score(tasks, steps=1)
            with torch.no_grad():
                again = learner.meta_loss(tasks)
            found = {n: None if v.grad is None else v.grad.clone() for n, v in learner.named_parameters()}
            buffers = {name: value.clone() for name, value in learner.named_buffers()}
            if processes is not None:
                processes.check_alike([v for v in found.values() if v is not None], "gradients")
            learner.zero_grad()
            learner.meta_loss(tasks).backward()
            for n, v in learner.named_parameters():
                if v.grad is not None and name != "carried":  # whose moments have moved on
                    torch.testing.assert_close(v.grad, found[n])
        return {"loss": loss, "again": again, "scores": scores, **found, **buffers}
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("count", [5, 1])
@pytest.mark.parametrize("name", LEARNERS)
def test_meta_gradients(two: Any, name: str, count: int) -> None:
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        if name == "compiled" and (count == 1 or dtype == torch.float32):
            continue
        alone = gradients("maml-1" if name == "compiled" else name, count, dtype, shared=False)
        both = two(gradients, name, count, dtype, shared=True)
        assert alone.keys() == both[0].keys()
        for key, value in alone.items():
            first, second = both[0][key], both[1][key]
            if value is None:
                assert (first, second) == (None, None), key
                continue
            assert torch.equal(first, second), key
            scale = max(1.0, float(value.abs().max()))
            assert float((first - value).abs().max()) <= tolerance * scale * (50 if name == "imaml" else 1), key


class WithDropout(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.dropout(self.body(x), 0.5, self.training))


def two_steps_with_dropout() -> tuple[list[Tensor], Tensor, list[float]]:
    learner = fs.maml(WithDropout(), fs.mse, inner_lr=0.05)
    own = []
    with parallel.together() as processes:
        for _ in range(2):
            learner.zero_grad()
            learner.meta_gradient(tasks_of(2))
            with processes.own_random_numbers():
                own.append(torch.rand(()).item())
    return [v.grad for v in learner.parameters() if v.grad is not None], torch.get_rng_state(), own


def test_each_process_draws_its_own_dropout_and_the_global_state_stays_common(two: Any) -> None:
    (first, state, own), (second, other_state, others) = two(two_steps_with_dropout)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(state, other_state)
    assert len({*own, *others}) == 4


def weighted(model: nn.Module, batch: Batch) -> Tensor:
    return (batch.weight * (model(batch.x) - batch.y).square().mean(-1)).mean()


def gradient_of_weights(shared: bool, compiled: bool) -> Tensor:
    learner = fs.maml(nn.Linear(1, 1), weighted, inner_lr=0.05, compile=compiled)
    tasks = tasks_of(3)
    weight = torch.ones(3, 4, requires_grad=True)
    support = Batch(tasks.support.x, tasks.support.y, weight)
    with parallel.together() if shared else parallel.alone():
        learner.meta_loss(Task(support, Batch(tasks.query.x, tasks.query.y, torch.ones(3, 6)))).backward()
    assert weight.grad is not None
    return weight.grad


def test_gradients_of_data_reach_every_process(two: Any) -> None:
    alone = gradient_of_weights(shared=False, compiled=False)
    for compiled in (False, True):
        for found in two(gradient_of_weights, shared=True, compiled=compiled):
            torch.testing.assert_close(found, alone)


class Picky(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        if (x > 90).any():
            raise IndexError("no such row")
        return super().forward(x)


def one_fails(task: int, where: str) -> str:
    learner = fs.maml(Picky(1, 1), fs.mse, inner_lr=0.05, vectorize=False)
    tasks = tasks_of(4)
    tasks.query.x[task] = 99.0
    with parallel.together():
        try:
            learner.meta_loss(tasks) if where == "loss" else learner.score(tasks)
        except (IndexError, parallel.ProcessFailed) as error:
            return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.mark.parametrize("where", ["loss", "scores"])
def test_an_error_of_one_process_ends_all_with_its_words(two: Any, where: str) -> None:
    first, second = two(one_fails, 3, where)
    assert second == "IndexError: no such row"
    assert first == "ProcessFailed: Another of the 2 processes failed. process 1: IndexError: no such row"
    assert two(gradients, "maml", 5, torch.float64, shared=True)[0]["loss"].ndim == 0  # the group still works


def of_first(fails: bool) -> Any:
    with parallel.together() as processes:

        def only_once() -> int:
            if fails:
                raise FileExistsError("there is a run")
            return processes.rank + 5

        try:
            return processes.of_first(only_once)
        except FileExistsError as error:
            return str(error)


def test_what_the_first_process_does_reaches_all(two: Any) -> None:
    assert two(of_first, fails=False) == [5, 5]
    assert two(of_first, fails=True) == ["there is a run", "there is a run"]


def differ() -> str:
    with parallel.together() as processes:
        try:
            processes.check_alike([torch.zeros(3), torch.tensor([float(processes.rank)])], "the parameters")
        except parallel.ProcessFailed as error:
            return str(error)
    return "alike"


def test_different_bits_are_noticed(two: Any) -> None:
    assert all("the parameters differ between the 2 processes" in words for words in two(differ))


def test_shares_cover_every_task_once() -> None:
    for size in (1, 2, 3, 7):
        for count in (0, 1, 5, 7, 25):
            shares = [list(parallel.Processes(rank, size).share(count)) for rank in range(size)]
            assert [task for share in shares for task in share] == list(range(count))
            lengths = [len(share) for share in shares]
            assert max(lengths) - min(lengths) <= 1
