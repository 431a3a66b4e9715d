"""What a person sees while training."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any


class Progress:
    """A live bar with rate, loss and time left on a terminal; elsewhere a line now and then. On standard error.

    Args:
        title: what is being trained.
        start: iterations done before.
        total: iterations in all.
        show: ``False`` shows nothing.
    """

    def __init__(self, title: str, start: int, total: int, show: bool = True) -> None:
        self._title, self._start, self._total = title, start, total
        self._began = self._updated = time.monotonic()
        self._interval = 0.2
        self._loss = self._validation = ""
        self._bar: Any = None
        self._show = show
        if show and sys.stderr.isatty():
            self._bar = _terminal_bar()
            self._task = self._bar.add_task(title, total=total, completed=start, rate="", loss="", validation="")
            self._bar.start()
        elif show:
            self._interval = 10.0

    def update(self, done: int, loss: Callable[[], float], force: bool = False) -> None:
        """``done`` iterations are finished; ``loss`` is only asked for when something is shown."""
        now = time.monotonic()
        if not self._show or (now - self._updated < self._interval and not force):
            return
        self._updated = now
        rate = (done - self._start) / max(now - self._began, 1e-9)
        self._loss = f"loss {loss():.4f}"
        text = f"{rate:,.0f} it/s" if rate >= 10 else f"{rate:.2f} it/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=text, loss=self._loss, validation=self._validation)
        else:
            left = (self._total - done) / max(rate, 1e-9)
            count = f"{self._title}: {done:,}/{self._total:,}"
            words = [count, text, self._loss, self._validation, f"{left:.0f} s left"]
            print(", ".join(word for word in words if word), file=sys.stderr, flush=True)

    def validated(self, text: str) -> None:
        """A validation result, shown from now on."""
        self._validation = text

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()


def _terminal_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[validation]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
