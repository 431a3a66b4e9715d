"""What happens around the iterations of training: records, validation, checkpoints, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from fewstep.evaluation.numbers import format_metric
from fewstep.training.deadline import Deadline
from fewstep.training.divergence import check_parameters, mean_of
from fewstep.training.interrupt import Interruption, TrainingInterrupted
from fewstep.training.progress import Progress
from fewstep.training.recorder import Recorder
from fewstep.training.run_folder import RunFolder
from fewstep.training.state import State
from fewstep.training.validation import Validation


class Session:
    """Everything of one call of [`fit`][fewstep.fit] but the meta-gradient steps.

    Args:
        state: what changes while training, restored from a checkpoint if the run is resumed.
        folder: the run folder, if any.
        recorder: where metrics go.
        validation: when and on what to validate.
        deadline: a time of `time.monotonic()` before which training stops.
        iterations: outer steps in all.
        log_every: iterations per row of metrics.
        checkpoint_every: iterations between checkpoints.
        progress: whether progress is shown.
        title: title of the progress.
        report: further numbers for each row of metrics.
    """

    def __init__(
        self,
        state: State,
        folder: RunFolder | None,
        recorder: Recorder,
        validation: Validation,
        *,
        deadline: float | None,
        iterations: int,
        log_every: int,
        checkpoint_every: int,
        progress: bool,
        title: str,
        report: Callable[[], dict[str, Any]],
    ) -> None:
        self._state, self._folder, self._recorder, self._validation = state, folder, recorder, validation
        self._iterations, self._log_every, self._checkpoint_every = iterations, log_every, checkpoint_every
        self._deadline, self._interruption = Deadline(deadline), Interruption()
        self._show: tuple[str, int, int, bool] = (title, state.iteration, iterations, progress)
        self._report = report
        self._losses: list[Tensor] = []

    def __enter__(self) -> Session:
        state = self._state
        self._progress = Progress(*self._show)
        self._began = self._lap_began = time.monotonic()
        self._first = self._lap_from = state.iteration
        self._seconds_before = state.seconds + state.validation_seconds
        self._interruption.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.close()
        self._recorder.close()
        self._interruption.__exit__(*error)

    def iterations(self) -> Iterator[int]:
        """Yields the number of each iteration until training ends; `ends` is called between them."""
        state = self._state
        validates = self._validation.is_due(state.iteration + 1, self._iterations)
        first_validation = state.latest_validation_seconds or 60.0  # if unknown, rather too long
        self._continues = self._deadline.leaves_time_to_begin(first_validation if validates else 0.0)
        while self._continues and state.iteration < self._iterations:
            state.learner.iteration = state.iteration
            self._deadline.iteration_begins()
            yield state.iteration

    def ends(self, loss: Tensor) -> None:
        """Records, validates and saves at the end of an iteration, where it is time to.

        Args:
            loss: the meta-loss of the iteration.

        Raises:
            TrainingDiverged: the loss or a parameter became NaN or infinite.
            TrainingInterrupted: Ctrl-C or SIGTERM was received; all was saved.
        """
        state, iterations = self._state, self._iterations
        done = state.iteration = state.iteration + 1
        self._losses.append(loss)
        self._deadline.iteration_ends(loss.item)
        if done == self._first + 1:  # the first iteration compiles: the pace is that of those after it
            state.starting_seconds = time.monotonic() - self._began
            self._lap_began, self._lap_from = time.monotonic(), done
        interrupted = self._interruption.requested
        last = done == iterations or interrupted is not None or not self._leaves_time(done)
        self._progress.update(done, loss.item, force=done == iterations)
        saves = last or done % self._checkpoint_every == 0
        logs = saves or done % self._log_every == 0
        if logs:
            if done > self._lap_from:
                state.note_pace((time.monotonic() - self._lap_began) / (done - self._lap_from))
            mean = mean_of(self._losses, done, self._folder)
            self._recorder.write({"iteration": done, "loss": mean, **self._report()})
            self._losses.clear()
        if self._validation.is_due(done, iterations):
            self._validate(done)
        if saves:
            self._save(done)
        if logs:  # the next lap is without the time of validating and saving
            self._lap_began, self._lap_from = time.monotonic(), done
        if interrupted is not None and done < iterations:
            raise self._stopped(done, interrupted)
        self._continues = not last

    def _leaves_time(self, done: int) -> bool:
        due = self._validation.is_due
        validations = due(done, self._iterations) + due(done + 1, self._iterations)
        return self._deadline.leaves_time(validations, self._validation.rehearse, self._validation.num_tasks)

    def _validate(self, done: int) -> None:
        state, began = self._state, time.monotonic()
        found = self._validation.run()
        state.latest_validation_seconds = time.monotonic() - began
        state.validation_seconds += state.latest_validation_seconds
        self._deadline.validation_took(state.latest_validation_seconds)
        mean, interval = found.mean[-1], found.ci95[-1]
        self._recorder.write({"iteration": done, "validation": mean, "validation_ci95": interval})
        self._progress.validated(f"validation {format_metric(found.metric, mean, interval)} at iteration {done:,}")
        if self._validation.is_better(mean, state.best):
            state.best = mean
            if self._folder is not None:
                self._folder.save({"learner": state.learner.state_dict(), "iteration": done}, "best")

    def _save(self, done: int) -> None:
        state = self._state
        check_parameters(state.learner, done, self._folder)
        if self._folder is not None:
            state.seconds = self._seconds_before + time.monotonic() - self._began - state.validation_seconds
            self._folder.save(state.snapshot())

    def _stopped(self, done: int, number: Any) -> TrainingInterrupted:
        stopped = f"Stopped after {done:,} of {self._iterations:,} iteration{'s' * (self._iterations != 1)}"
        if self._folder is None:
            return TrainingInterrupted(f"{stopped}. Nothing was saved: fit was called without run=FOLDER.", number)
        return TrainingInterrupted(
            f"{stopped} and saved {self._folder.path}.",
            number,
            "To resume, call fit again with the same arguments and resume=True.",
        )
