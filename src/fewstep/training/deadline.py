"""Whether time remains for one more iteration, and how long an evaluation takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

CLOSE = 30.0
"""Seconds before the deadline from which every iteration waits for the device, so that measured times are exact."""


def seconds_of_test(test: Callable[[int], object], tasks: int, deadline: float) -> float:
    """Estimates how long an evaluation takes from evaluations of a few tasks; rather too long than too short.

    The first tasks take longer than the others. If a few predict that the evaluation would not end before the deadline,
    more are tried while time remains.

    Args:
        test: evaluates that number of tasks.
        tasks: number of tasks of the whole evaluation.
        deadline: a time of `time.monotonic()`.

    Returns:
        Seconds.

    Examples:
        >>> 1 < seconds_of_test(lambda tasks: time.sleep(tasks * 1e-3), 1000, time.monotonic() + 60) < 10
        True
    """
    seconds = 0.0
    for few, more in ((2, 10), (10, 100), (100, tasks)):
        began = time.monotonic()
        test(min(few, tasks))
        ended = time.monotonic()
        each = 1.2 * (ended - began) / min(few, tasks)
        seconds = each * tasks
        if few >= tasks or ended + seconds < deadline or ended + each * more > deadline:
            break
    return seconds


class Deadline:
    """Decides, after every iteration of training, whether the next one and its validations end in time.

    Args:
        at: a time of `time.monotonic()`; no deadline if `None`.
    """

    def __init__(self, at: float | None) -> None:
        self._at = at
        self._took: deque[float] = deque(maxlen=20)
        self._validation: float | None = None
        """Estimated seconds of a validation; `None` if unknown."""
        self._iterations = 0
        self._began = time.monotonic()

    def iteration_begins(self) -> None:
        """Starts the timing of an iteration."""
        self._began = time.monotonic()

    def iteration_ends(self, wait: Callable[[], object]) -> None:
        """Ends the timing of an iteration; `wait` waits for the device, at the start and near the deadline."""
        if self._at is None:
            return
        if self._iterations < 3 or self._at - time.monotonic() < CLOSE:
            wait()
        if self._iterations == 1:  # the first one compiles
            self._took.clear()
        self._iterations += 1
        self._took.append(time.monotonic() - self._began)

    def validation_took(self, seconds: float) -> None:
        """Notes the time of a validation, to predict the next one."""
        self._validation = 1.2 * seconds

    def leaves_time_to_begin(self, seconds: float) -> bool:
        """Whether time remains for an iteration and a validation of about this many seconds."""
        return self._at is None or time.monotonic() + seconds < self._at

    def leaves_time(self, validations: int, test: Callable[[int], object], tasks: int) -> bool:
        """Whether time remains for one more iteration.

        Args:
            validations: number of validations before its end.
            test: validates on that number of tasks; called if no validation has been timed.
            tasks: number of validation tasks.
        """
        if self._at is None:
            return True
        deadline = self._at - 1.2 * max(self._took, default=0.0)
        if time.monotonic() > deadline:
            return False
        if validations == 0:
            return True
        if self._validation is None:
            self._validation = seconds_of_test(test, tasks, deadline)
        return time.monotonic() + validations * self._validation < deadline
