"""Progress of training on the terminal, and durations in words."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    """A bar with rate, loss and time left on a terminal, or a line every ten seconds elsewhere; on standard error.

    Rate and time left are those of the iterations after the first one, which compiles.

    Args:
        title: what is being trained.
        start: iterations completed before.
        total: iterations in all.
        show: `False` shows nothing.
    """

    def __init__(self, title: str, start: int, total: int, show: bool = True) -> None:
        self._title, self._start, self._total = title, start, total
        self._began = self._updated = time.monotonic()
        self._timed = False
        self._interval = 0.2
        self._loss = self._validation = ""
        self._bar: Any = None
        self._show = show
        if show and sys.stderr.isatty():
            self._bar = _terminal_bar()
            self._task = self._bar.add_task(title, total=total, completed=start, words="")
            self._bar.start()
        elif show:
            self._interval = 10.0

    def update(self, done: int, loss: Callable[[], float], force: bool = False) -> None:
        """`done` iterations are complete; `loss` is only called when something is shown."""
        with self._hidden_if_closed():
            self._update(done, loss, force)

    @contextmanager
    def _hidden_if_closed(self) -> Iterator[None]:
        """A context that hides the progress if standard error was closed, as that of a lost terminal."""
        try:
            yield
        except OSError:
            self._show, self._bar = False, None

    def _update(self, done: int, loss: Callable[[], float], force: bool) -> None:
        now = time.monotonic()
        if not self._timed:  # the first iteration may compile
            self._timed, self._start, self._began = True, done, now
        if not self._show or (now - self._updated < self._interval and not force):
            return
        self._updated = now
        self._loss = f"loss {loss():.4f}"
        pace, left = self._pace(done, now)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, words=", ".join(filter(None, (pace, self._loss, left))))
        else:
            words = f"{self._title}: {done:,}/{self._total:,}", pace, self._loss, self._validation, left
            print(", ".join(filter(None, words)), file=sys.stderr, flush=True)

    def _pace(self, done: int, now: float) -> tuple[str, str]:
        """Iterations per second, and the time left; empty while they are unknown."""
        if done == self._start:
            return "", ""
        rate = (done - self._start) / max(now - self._began, 1e-9)
        text = f"{rate:,.0f} it/s" if rate >= 10 else f"{rate:.2f} it/s"
        return text, f"{duration((self._total - done) / max(rate, 1e-9))} left"

    def validated(self, text: str) -> None:
        """Shows a validation result: as a line above the bar, or in the following lines."""
        self._validation = text
        with self._hidden_if_closed():
            if self._bar is not None:
                self._bar.console.print(f"{self._title}: {text}", highlight=False)

    def close(self) -> None:
        """Leaves the bar as it is."""
        with self._hidden_if_closed():
            if self._bar is not None:
                self._bar.stop()


def seconds_of(text: str) -> float:
    """The seconds of a duration such as `90s`, `9m`, `1.5h` or `540` (seconds).

    Raises:
        ValueError: it is not a duration, or not positive.

    Examples:
        >>> seconds_of("1.5h")
        5400.0
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", text.strip())
    if found is None or float(found[1]) == 0:
        raise ValueError(f"expected a duration such as 90s, 9m, 1.5h, or a number of seconds; got {text!r}.")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def duration(seconds: float) -> str:
    """A duration in words.

    Args:
        seconds: its seconds.

    Examples:
        >>> duration(42), duration(187), duration(7500), duration(93900)
        ('42 s', '3:07', '2:05:00', '1 day 2:05:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    whole_days = f"{days} day{'s' * (days > 1)} " if days else ""
    return whole_days + (f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}")


def _terminal_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        console=Console(stderr=True),
        expand=True,
    )
