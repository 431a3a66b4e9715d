"""What the benchmarks share: one core, a header that says on what they ran, and competitors timed in turn."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from fewstep import allocator
from fewstep.training.processor import processor

Made = TypeVar("Made")

console = Console(width=120, highlight=False)


def use_one_core() -> None:
    """Pins this process, and what it starts, to the last core it may run on."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def parse_on_allocator(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, ``--allocator`` among them; the process starts again if it has to, to run on that."""
    parser.add_argument("--allocator", choices=allocator.NAMES, default="auto", help="as the command line's (auto)")
    options = parser.parse_args()
    allocator.restart_with(options.allocator)
    return options


def print_header(title: str, device: str = "cpu") -> None:
    console.print(f"[bold]{title}[/bold]")
    console.print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} thread, "
        f"{processor(device)}, allocator: {allocator.current()}"
    )


def installed(makers: Mapping[str, Callable[[], Made]]) -> dict[str, Made]:
    """What can be made with the libraries that are here; says which are not."""
    made = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except ModuleNotFoundError as error:
            console.print(f"{name}: left out, {error.name} is not installed")
    return made


def in_turn(competitors: Mapping[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per call of each competitor, one number per round; every round gives each of them ``seconds`` in turn.

    What else the machine does then falls on all of them alike.
    """
    calls = {name: _calls_in(function, seconds) for name, function in competitors.items()}
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, function in competitors.items():
            function()  # brings its code and data back into the caches
            _finish()
            start = time.perf_counter()
            for _ in range(calls[name]):
                function()
            _finish()
            times[name].append((time.perf_counter() - start) / calls[name])
    return times


def print_times(title: str, times: Mapping[str, list[float]], reference: str) -> None:
    """A table of medians, minima, and how much faster than ``reference`` each is."""
    table = Table("", "median ms", "minimum ms", f"× faster than {reference}", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in times.items():
        table.add_row(
            name,
            f"{statistics.median(values) * 1e3:.3f}",
            f"{min(values) * 1e3:.3f}",
            f"{speedup(times, name, reference):.2f}",
        )
    console.print(table)


def speedup(times: Mapping[str, list[float]], name: str, reference: str) -> float:
    """How many times faster ``name`` is than ``reference``: the median over rounds of the ratio within a round."""
    return statistics.median(r / t for r, t in zip(times[reference], times[name], strict=True))


def _calls_in(function: Callable[[], object], seconds: float) -> int:
    for _ in range(3):
        _finish()
        start = time.perf_counter()
        function()
        _finish()
        elapsed = time.perf_counter() - start
    return max(1, round(seconds / elapsed))


def _finish() -> None:
    """Waits for the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
