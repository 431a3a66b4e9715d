"""Signals that end training between iterations, never inside one."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
"""Ctrl-C; the end of a job; a closed terminal; Slurm's warning (`--signal=USR1@90`)."""


class TrainingInterrupted(KeyboardInterrupt):
    """A signal such as Ctrl-C or SIGTERM ended training after a complete iteration; the run folder, if any, was saved.

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
    """While active, a first signal only sets `requested` and answers in words; a second Ctrl-C interrupts at once.

    A SIGHUP that is ignored, as under `nohup`, and a SIGUSR1 that the program handles stay as they are. Python delivers
    signals to the main thread; in other threads this does nothing.

    Args:
        saves: whether there is a run folder.
        answers: whether this process answers in words.
    """

    def __init__(self, saves: bool = False, answers: bool = True) -> None:
        self.requested: signal.Signals | None = None
        self.doing = "this iteration"
        """What ends before training stops, for the answer."""
        self._saves, self._answers = saves, answers
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if number in (signal.SIGINT, signal.SIGTERM) or before is signal.SIG_DFL:
                    self._previous[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.requested = self.requested is None, signal.Signals(number)
        if first and self._answers:
            name = "Ctrl-C" if number == signal.SIGINT else self.requested.name
            then = "saves and stops" if self._saves else "stops"
            words = f"\n{name}: training {then} after {self.doing}. Press Ctrl-C again to stop at once.\n"
            with suppress(OSError):  # the terminal was closed
                os.write(2, words.encode())  # not print, which may be in the middle of a line
