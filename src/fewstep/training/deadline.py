"""Whether there is time for one more iteration, and how long a test will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

CLOSE = 30.0
"""So many seconds before the time is up every iteration waits for the device, so that what is measured is true."""


def seconds_of_test(test: Callable[[int], object], tasks: int, deadline: float) -> float:
    """About how long a test of so many tasks takes, rather too long than too short, judged by tests of a few.

    The first tasks take longer than their share of many. So where a few say that the test would not end before the
    deadline, more are tried, as long as there is time for them.

    Args:
        test: tests on that many tasks.
        tasks: how many are to be tested.
        deadline: a time of ``time.monotonic()``.

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
    """Looks, after every iteration of training, whether the next one and the validations until then end in time.

    Args:
        at: a time of ``time.monotonic()``; never, if ``None``.
    """

    def __init__(self, at: float | None) -> None:
        self._at = at
        self._took: deque[float] = deque(maxlen=20)
        self._validation: float | None = None
        """About how long one takes; not known yet, if ``None``."""
        self._iterations = 0
        self._began = time.monotonic()

    def iteration_begins(self) -> None:
        """From here the iteration is timed."""
        self._began = time.monotonic()

    def iteration_ends(self, wait: Callable[[], object]) -> None:
        """To here; ``wait`` waits for the device, and is called at the start and when the time is nearly up."""
        if self._at is None:
            return
        if self._iterations < 3 or self._at - time.monotonic() < CLOSE:
            wait()
        if self._iterations == 1:  # the first one compiles
            self._took.clear()
        self._iterations += 1
        self._took.append(time.monotonic() - self._began)

    def validation_took(self, seconds: float) -> None:
        """So that the time of the next one is known."""
        self._validation = 1.2 * seconds

    def leaves_time_to_begin(self, seconds: float) -> bool:
        """Whether there is time for an iteration and a validation of about so many seconds."""
        return self._at is None or time.monotonic() + seconds < self._at

    def leaves_time(self, validations: int, test: Callable[[int], object], tasks: int) -> bool:
        """Whether there is time for one more iteration.

        Args:
            validations: that come before its end.
            test: validates on that many tasks; used while no validation was timed.
            tasks: of a validation.
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
