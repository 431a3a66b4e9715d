"""Two processes for all tests of a session: each runs the same function, and both results come back."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Two:
    """Two processes in a group of ``torch.distributed``, with one thread each.

    Args:
        timeout: seconds after which a process that does not answer ends the other.
    """

    def __init__(self, timeout: float = 60.0, size: int = 2) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        start = multiprocessing.get_context("spawn")
        self.size, self._ends, self.processes = size, [], []
        for rank in range(size):
            here, there = start.Pipe()
            process = start.Process(target=_serve, args=(there, rank, size, port, timeout), daemon=True)
            process.start()
            there.close()
            self._ends.append(here)
            self.processes.append(process)
        atexit.register(self.close)

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """What the function returns in each process.

        Raises:
            AssertionError: it raised an exception in one of them.
        """
        answers = self.outcomes(function, *args, **kwargs)
        failures = [f"process {rank}:\n{words}" for rank, (words, _) in enumerate(answers) if words]
        assert not failures, "\n".join(failures)
        return [found for _, found in answers]

    def outcomes(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[tuple[str, Any]]:
        """For each process, the traceback of an exception (empty if there is none) and the result."""
        for end in self._ends:
            end.send((function, args, kwargs))
        found = []
        for end, process in zip(self._ends, self.processes, strict=True):
            if not end.poll(120):
                self.close()
                raise AssertionError(f"{function.__name__} did not end within 120 s in {process.name}.")
            try:
                found.append(end.recv())
            except (EOFError, OSError):
                found.append(("ended", None))
        return found

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()


def _serve(connection: Connection, rank: int, size: int, port: int, timeout: float) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), FEWSTEP_TIMEOUT=str(timeout))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    warnings.filterwarnings("error", category=UserWarning)
    warnings.filterwarnings("ignore", message="There is a performance drop")
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            function, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            torch.manual_seed(0)
            connection.send(("", function(*args, **kwargs)))
        except Exception:
            connection.send((traceback.format_exc(), None))
