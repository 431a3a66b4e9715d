"""Ctrl-C between iterations, never inside one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended training after a complete iteration; the run folder, if any, was saved.

    Args:
        stopped: what was done and saved.
        signal: the signal that was received.
        resume: how to resume.
    """

    def __init__(self, stopped: str, signal: signal.Signals, resume: str = "") -> None:
        super().__init__(f"{stopped} {resume}".rstrip())
        self.stopped = stopped
        self.signal = signal

    def resumed_by(self, resume: str) -> TrainingInterrupted:
        """The same interruption with other words on how to resume: a command has others than a Python program."""
        return TrainingInterrupted(self.stopped, self.signal, resume)


class Interruption:
    """While active, a first Ctrl-C or a SIGTERM only sets `requested`; a second Ctrl-C interrupts at once.

    Python delivers signals to the main thread; in other threads this does nothing.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number)
