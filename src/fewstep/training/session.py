"""What happens around the iterations of training: records, validation, checkpoints, and when to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fewstep.evaluation.numbers import format_metric
from fewstep.parallel import Processes
from fewstep.parallel.agreement import Agreement
from fewstep.tasks import Task
from fewstep.training.deadline import Deadline
from fewstep.training.divergence import Divergence, mean_of
from fewstep.training.interrupt import Interruption, TrainingInterrupted
from fewstep.training.progress import Progress
from fewstep.training.recorder import Recorder
from fewstep.training.run_folder import BEST, RunFolder
from fewstep.training.state import State
from fewstep.training.validation import Validation, ValidationStopped


class Session:
    """Everything of one call of [`fit`][fewstep.fit] but the meta-gradient steps.

    Args:
        state: what changes while training, restored from a checkpoint if the run is resumed.
        folder: the run folder, if any.
        recorder: where metrics go.
        validation: when and on what to validate.
        processes: the processes that share the work.
        deadline: a time of `time.monotonic()` before which training stops.
        iterations: outer steps in all.
        log_every: iterations per row of metrics.
        checkpoint_every: iterations between checkpoints.
        skips_nan: whether meta-batches with NaN or infinity are skipped.
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
        processes: Processes,
        *,
        deadline: float | None,
        iterations: int,
        log_every: int,
        checkpoint_every: int,
        skips_nan: bool,
        progress: bool,
        title: str,
        report: Callable[[], dict[str, Any]],
    ) -> None:
        self._state, self._folder, self._recorder, self._validation = state, folder, recorder, validation
        self._iterations, self._log_every, self._checkpoint_every = iterations, log_every, checkpoint_every
        self._deadline, self._interruption = Deadline(deadline), Interruption(folder is not None, processes.is_first)
        self._processes, self._agreement = processes, Agreement(processes)
        self._agreed: signal.Signals | None = None
        """The signal on which several processes agreed."""
        self._divergence, self._skips = Divergence(state.learner, folder, skips_nan), skips_nan
        self._show: tuple[str, int, int, bool] = (title, state.iteration, iterations, progress and processes.is_first)
        self._report = report
        self._losses: list[Tensor] = []
        self._finite = True
        self._saved_at: int | None = None
        """The iteration at which this session saved its latest checkpoint."""

    def __enter__(self) -> Session:
        state = self._state
        self._progress = Progress(*self._show)
        self._began = self._lap_began = time.monotonic()
        self._first = self._lap_from = state.iteration
        self._seconds_before = state.seconds + state.validation_seconds
        self._interruption.__enter__()
        return self

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The metrics."""
        return self._recorder.rows

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._progress.close()
        self._recorder.close()
        self._interruption.__exit__()
        number, done = self._interruption.requested, self._state.iteration
        if error is None:
            self._agreement.close()
        if number is not None and isinstance(error, Exception) and done == self._first:
            # Ctrl-C ended the compiler too, and with it the first iteration: nothing was there to save.
            raise self._stopped(done, number) from error

    def iterations(self) -> Iterator[int]:
        """Yields the number of each iteration until training ends; `ends` is called between them.

        Raises:
            TrainingInterrupted: a signal was received; all was saved.
        """
        state = self._state
        if state.validation_is_due:  # the session before was ended in it
            self._validate(state.iteration)
            self._save(state.iteration)
        validates = self._validation.is_due(state.iteration + 1, self._iterations)
        first_validation = state.latest_validation_seconds or 60.0  # if unknown, rather too long
        begins = self._deadline.leaves_time_to_begin(first_validation if validates else 0.0)
        self._continues = not self._processes.any(not begins)
        self._interruption.doing = "the first iteration, which may compile"
        while True:
            self._stop_if_interrupted()
            if not self._continues or state.iteration >= self._iterations:
                return
            state.learner.iteration = state.iteration
            self._deadline.iteration_begins()
            yield state.iteration
            self._interruption.doing = "this iteration"

    def loss(self, function: Callable[[Task], Tensor], tasks: Task) -> Tensor:
        """The loss of a meta-batch; NaN for one that is skipped because its data hold NaN."""
        if self._divergence.iteration_begins(self._state.iteration, tasks):
            return function(tasks)
        return torch.tensor(torch.nan)

    def is_finite(self, loss: Tensor, with_gradient: bool = True) -> bool:
        """Whether the iteration's loss and gradient are finite; `False` if the meta-batch is skipped.

        Raises:
            TrainingDiverged: they are not.
        """
        self._finite = self._divergence.is_finite(loss, with_gradient)
        return self._finite

    def ends(self, loss: Tensor) -> None:
        """Records, validates and saves at the end of an iteration, where it is time to.

        Args:
            loss: the meta-loss of the iteration.

        Raises:
            TrainingDiverged: the loss or a parameter became NaN or infinite.
            TrainingInterrupted: a signal was received; all was saved.
        """
        state, iterations = self._state, self._iterations
        done = state.iteration = state.iteration + 1
        if self._finite:
            self._losses.append(loss)
        self._deadline.iteration_ends(loss.item)
        if done == self._first + 1:  # the first iteration compiles: the pace is that of those after it
            state.starting_seconds = time.monotonic() - self._began
            self._lap_began, self._lap_from = time.monotonic(), done
        leaves_time = done == iterations or self._leaves_time(done)
        number, ends = self._agreement.after_iteration(int(self._interruption.requested or 0), int(not leaves_time))
        self._agreed = signal.Signals(number) if number else None
        last = done == iterations or bool(ends)
        self._progress.update(done, loss.item, force=done == iterations)
        state.validation_is_due = self._validation.is_due(done, iterations)
        saves = last or done % self._checkpoint_every == 0
        logs = saves or state.validation_is_due or done % self._log_every == 0
        if logs:
            self._log(done)
        if state.validation_is_due:
            self._save(done)  # a validation that is cut off is repeated
            self._validate(done)
        if saves:
            self._save(done)
        if logs:  # the next lap is without the time of validating and saving
            self._lap_began, self._lap_from = time.monotonic(), done
        self._continues = not last

    @property
    def _requested(self) -> signal.Signals | None:
        """The signal that ends training. Several processes act on one that all of them know of."""
        return self._interruption.requested if self._processes.size == 1 else self._agreed

    def _stops_validation(self) -> bool:
        number = self._agreement.now(int(self._interruption.requested or 0))
        self._agreed = signal.Signals(number) if number else None
        return self._requested is not None

    def _stop_if_interrupted(self) -> None:
        """Saves, unless that was done after this iteration, and raises if a signal was received."""
        number, done = self._requested, self._state.iteration
        if number is not None:
            if self._losses or self._divergence.skipped:
                self._log(done)
            if done > self._first and self._saved_at != done:
                self._save(done)
            raise self._stopped(done, number)

    def _leaves_time(self, done: int) -> bool:
        due = self._validation.is_due
        validations = due(done, self._iterations) + due(done + 1, self._iterations)
        return self._deadline.leaves_time(validations, self._validation.rehearse, self._validation.num_tasks)

    def _log(self, done: int) -> None:
        self._divergence.check_previous()
        if done > self._lap_from:
            self._state.note_pace((time.monotonic() - self._lap_began) / (done - self._lap_from))
        row: dict[str, Any] = {"iteration": done}
        if self._losses:  # not all of them were skipped
            row["loss"] = mean_of(self._losses)
        if self._skips:
            row["skipped"] = self._divergence.skipped
        self._recorder.write({**row, **self._report()})
        self._losses.clear()
        self._divergence.skipped = 0

    def _validate(self, done: int) -> None:
        self._stop_if_interrupted()
        state, began = self._state, time.monotonic()
        self._interruption.doing = "this part of the validation"
        try:
            found = self._validation.run(stops=self._stops_validation)
        except ValidationStopped:
            self._stop_if_interrupted()
            raise
        state.latest_validation_seconds = time.monotonic() - began
        state.validation_seconds += state.latest_validation_seconds
        self._deadline.validation_took(state.latest_validation_seconds)
        mean, interval = found.mean[-1], found.ci95[-1]
        self._recorder.write({"iteration": done, "validation": mean, "validation_ci95": interval})
        self._progress.validated(f"validation {format_metric(found.metric, mean, interval)} at iteration {done:,}")
        if self._validation.is_better(mean, state.best):
            state.best = mean
            if self._folder is not None:
                self._folder.save({"learner": state.learner.state_dict(), "iteration": done}, BEST)
        state.validation_is_due, self._saved_at = False, None

    def _save(self, done: int) -> None:
        state = self._state
        self._divergence.check_parameters(done)
        self._processes.check_alike(state.learner.state_dict(), f"The learner's parameters after {done:,} iterations")
        state.seconds = self._seconds_before + time.monotonic() - self._began - state.validation_seconds
        self._processes.of_first(self._write)
        self._saved_at = done

    def _write(self) -> None:
        if self._folder is not None:
            self._folder.save(self._state.snapshot())

    def _stopped(self, done: int, number: Any) -> TrainingInterrupted:
        return TrainingInterrupted(*self._processes.of_first(lambda: self._words(done, number)))

    def _words(self, done: int, number: Any) -> tuple[str, Any, str]:
        """What was done and saved, the signal, and how to resume."""
        stopped = f"Stopped after {done:,} of {self._iterations:,} iteration{'s' * (self._iterations != 1)}"
        if self._state.validation_is_due:
            stopped += ", before their validation,"
        if self._folder is None:
            return f"{stopped}. Nothing was saved: fit was called without run=FOLDER.", number, ""
        if not self._folder.has_checkpoint():
            return f"{stopped}. There was nothing to save.", number, ""
        resume = "To resume, call fit again with the same arguments and resume=True."
        return f"{stopped} and saved {self._folder.path}.", number, resume
