"""The processes that share a meta-batch: shares, sums, and what only the first one does."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from fewstep.adaptation.random_numbers import random_state, set_random_state
from fewstep.pytorch import process_store
from fewstep.tasks.trees import split, tensors

T = TypeVar("T")


class ProcessFailed(RuntimeError):  # noqa: N818 - says what happened
    """Another process raised an error, ended, or did not answer in time."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a meta-batch. With one process every method is the identity.

    All processes call the same methods in the same order. Results are the same bits in every process.

    Args:
        rank: the number of this process, from 0.
        size: the number of processes.
        timeout: the number of seconds after which a process that does not answer ends the others.

    Examples:
        >>> Processes(rank=1, size=3).share(7)
        range(3, 5)
    """

    rank: int
    size: int
    timeout: float = 600.0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The tasks of this process, of ``count``: contiguous shares, as even as possible, the larger ones first.

        Empty for some processes if there are fewer tasks than processes.
        """
        least, more = divmod(count, self.size)
        first = self.rank * least + min(self.rank, more)
        return range(first, first + least + (self.rank < more))

    # Messages

    def sum(
        self, values: Sequence[Tensor | None], likes: Sequence[Tensor], error: BaseException | None = None
    ) -> list[Tensor | None]:
        """Add up tensors over the processes, in one message for each dtype and device.

        Args:
            values: what this process adds; ``None`` counts as 0, and the result is ``None`` where every process has
                ``None``.
            likes: tensors with the shapes, dtypes and devices of the values, the same in every process.
            error: what this process raised instead of computing ``values``; it is raised here, and
                [`ProcessFailed`][fewstep.parallel.ProcessFailed] in the other processes.
        """
        if self.size == 1:
            if error is not None:
                raise error
            return list(values)
        groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for place, like in enumerate(likes):
            groups.setdefault((like.dtype, like.device), []).append(place)
        found: list[Tensor | None] = [None] * len(likes)
        failed = False
        for (dtype, device), places in groups.items():
            parts = [
                likes[i].new_zeros(likes[i].numel()) if value is None else value.detach().reshape(-1)
                for i, value in ((i, values[i]) for i in places)
            ]
            # Beside the values: which of them are present, and whether a process failed.
            told = [float(values[i] is not None) for i in places] + [float(error is not None)]
            flat = torch.cat([*parts, torch.tensor(told, dtype=dtype, device=device)])
            self.wait(lambda flat=flat: distributed.all_reduce(flat, async_op=True))  # type: ignore[misc]
            *pieces, marks = flat.split([*(part.numel() for part in parts), len(told)])
            *present, failures = marks.real.tolist()
            failed = failed or failures > 0
            for i, piece, is_present in zip(places, pieces, present, strict=True):
                found[i] = piece.view(likes[i].shape) if is_present > 0 else None
        if failed:
            self._raise_failure(error)
        return found

    def gather(self, values: Any, count: int, error: BaseException | None = None) -> Any:
        """Put the shares of all processes together.

        Args:
            values: a tree of tensors whose leading axis is that of the tasks of this process (a share that is empty has
                one task, which does not count).
            count: the number of tasks of all processes.
            error: as for ``sum``.

        Returns:
            The tree, with ``count`` as leading axis.
        """
        self.check_success(error)
        if self.size == 1:
            return values
        counts = [len(Processes(rank, self.size).share(count)) for rank in range(self.size)]
        widest = counts[0]
        found, rebuild = split(values)
        gathered = []
        for value in found:
            padded = value.new_zeros(widest, *value.shape[1:])
            padded[: counts[self.rank]] = value[: counts[self.rank]]
            flat = value.new_zeros(self.size * widest, *value.shape[1:])
            as_bytes = value.dtype == torch.bool
            own, all_of_them = (padded.view(torch.uint8), flat.view(torch.uint8)) if as_bytes else (padded, flat)
            parts = list(all_of_them.chunk(self.size)) if widest else []
            self.wait(lambda parts=parts, own=own: distributed.all_gather(parts, own, async_op=True))  # type: ignore[misc]
            gathered.append(torch.cat([flat[i * widest :][:own_count] for i, own_count in enumerate(counts)]))
        return rebuild(gathered)

    def check_success(self, error: BaseException | None) -> None:
        """Raise in every process if one of them failed: its own error there, `ProcessFailed` in the others."""
        if self.any(error is not None):
            self._raise_failure(error)

    def any(self, mine: bool) -> bool:
        """Whether it is true in one of the processes."""
        if self.size == 1:
            return mine
        flag = torch.tensor([float(mine)])
        self.wait(lambda: distributed.all_reduce(flag, distributed.ReduceOp.MAX, async_op=True))
        return bool(flag.item() > 0)

    def of_first(self, function: Callable[[], T]) -> T:
        """What a function returns in the first process, which alone calls it; an exception reaches all of them.

        Args:
            function: returns an object that can be pickled.
        """
        if self.size == 1:
            return function()
        told: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_first:
            try:
                told[0] = function()
            except Exception as found:
                error = found
                told[1] = found if _can_be_sent(found) else RuntimeError(f"{type(found).__name__}: {found}")
        self.wait(lambda: distributed.broadcast_object_list(told, src=0))
        if error is not None:
            raise error
        if told[1] is not None:
            raise told[1]
        found_by_first: T = told[0]
        return found_by_first

    def check_alike(self, values: Any, what: str) -> None:
        """Raise if the tensors of a tree are not the same bits in every process.

        Raises:
            ProcessFailed: they differ.
        """
        if self.size == 1:
            return
        known = hashlib.sha256()
        for value in tensors(values):
            known.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        mine = torch.frombuffer(bytearray(known.digest()), dtype=torch.uint8).to(torch.int32)
        both = torch.cat([mine, -mine])
        self.wait(lambda: distributed.all_reduce(both, distributed.ReduceOp.MAX, async_op=True))
        if not torch.equal(both[:32], -both[32:]):
            raise ProcessFailed(
                f"{what} differ between the {self.size} processes. Every process must call fit with the same learner, "
                "source and options, and a custom step must change the parameters in the same way everywhere."
            )

    # Work on shares

    def own_tasks(self, tasks: Any) -> tuple[Any, int]:
        """The tasks of this process, and how many of them count: with none, the first task, which does not count."""
        if self.size == 1:
            return tasks, len(tasks)
        share = self.share(len(tasks))
        return (tasks[share.start : share.stop], len(share)) if share else (tasks[:1], 0)

    @contextmanager
    def own_random_numbers(self) -> Iterator[None]:
        """A context in which every process draws other random numbers from PyTorch's global generators.

        At the end these are in the same state in all processes: advanced if numbers were drawn, else as before.
        """
        if self.size == 1:
            yield
            return
        before = random_state()
        common = torch.randint(2**62, ()).item()
        after = random_state()
        torch.manual_seed((int(common) + self.rank * 0x9E3779B97F4A7C15) % 2**63)
        began = random_state()
        try:
            yield
        finally:
            drew = any(not torch.equal(value, began[name]) for name, value in random_state().items() if name in began)
            set_random_state(after if drew else before)

    def of_all(self, work: Callable[[], Any], count: int) -> Any:
        """What a function computes for the tasks of each process, put together; an exception ends all processes.

        Args:
            work: returns a tree of tensors whose leading axis is that of the tasks of this process.
            count: the number of tasks of all processes.
        """
        own, error = self.attempt(work)
        return self.gather(own, count, error)

    def attempt(self, work: Callable[[], T]) -> tuple[T | None, Exception | None]:
        """What a function returns, or the exception that it raises, if there are other processes to tell of it."""
        if self.size == 1:
            return work(), None
        try:
            with self.own_random_numbers():
                return work(), None
        except ProcessFailed:
            raise  # the others know already
        except Exception as error:
            return None, error

    def _raise_failure(self, error: BaseException | None) -> None:
        """Raise the error of this process, or another one that names the processes that failed."""
        told: list[Any] = [None] * self.size
        mine = None if error is None else f"{type(error).__name__}: {error}"
        self.wait(lambda: distributed.all_gather_object(told, mine))
        if error is not None:
            raise error
        named = "; ".join(f"process {rank}: {words}" for rank, words in enumerate(told) if words is not None)
        raise ProcessFailed(f"Another of the {self.size} processes failed. {named}")

    def wait(self, message: Callable[[], Any]) -> None:
        """Send a message and wait for it; the error of a process that is lost names it."""
        try:
            work = message()
            if work is not None:
                work.wait()
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> ProcessFailed:
        """What to raise when a message failed: names the processes that do not answer."""
        store = process_store()
        silent: list[int] = []
        if store is not None:
            try:
                store.set(f"fewstep/waits/{self.rank}", b"1")
                deadline = time.monotonic() + min(5.0, self.timeout)
                silent = list(range(self.size))
                while silent and time.monotonic() < deadline:
                    silent = [rank for rank in silent if not store.check([f"fewstep/waits/{rank}"])]
                    time.sleep(0.05)
            except RuntimeError:  # the first process, which keeps the store, has ended
                silent = [0]
        who = f"process {', '.join(map(str, silent))}" if silent else "a process"
        first_line = next(iter(str(error).splitlines()), "")[:200]
        return ProcessFailed(
            f"{who} of {self.size} ended, or did not answer within {self.timeout:g} s ({first_line}). Look at its "
            "output. FEWSTEP_TIMEOUT=SECONDS changes the limit."
        )


def _can_be_sent(error: Exception) -> bool:
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:
        return False


ALONE = Processes(0, 1)
"""One process."""
