"""What processes decide alike although they see it at different moments: signals, and the time that is left."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from fewstep.parallel.processes import Processes


class Agreement:
    """The greatest of numbers that processes tell after every iteration, one iteration late, so that none waits.

    Args:
        processes: the processes.

    Examples:
        >>> Agreement(Processes(0, 1)).after_iteration(15, 0)
        [15, 0]
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._pending: tuple[Tensor, Any] | None = None

    def after_iteration(self, *numbers: int) -> list[int]:
        """What the processes told after the iteration before; with one process what it tells now."""
        if self._processes.size == 1:
            return list(numbers)
        told = self._told() or [0] * len(numbers)
        mine = torch.tensor(numbers)
        self._pending = mine, distributed.all_reduce(mine, distributed.ReduceOp.MAX, async_op=True)
        return told

    def now(self, number: int) -> int:
        """The greatest number that a process tells now; every process waits for the others."""
        if self._processes.size == 1:
            return number
        mine = torch.tensor([number])
        self._processes.wait(lambda: distributed.all_reduce(mine, distributed.ReduceOp.MAX, async_op=True))
        return int(mine)

    def close(self) -> None:
        """Wait for the last message."""
        self._told()

    def _told(self) -> list[int] | None:
        if self._pending is None:
            return None
        (numbers, work), self._pending = self._pending, None
        self._processes.wait(lambda: work)
        return [int(number) for number in numbers]
