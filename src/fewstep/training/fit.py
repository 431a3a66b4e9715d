"""The outer loop (MAML, Algorithm 1): meta-batches in, a learned initialisation out."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fewstep.adaptation.random_numbers import replayed
from fewstep.evaluation.evaluate import Evaluation, evaluate
from fewstep.evaluation.numbers import format_metric
from fewstep.objectives import accuracy
from fewstep.tasks import Task, TaskSource, generator
from fewstep.tasks.batch import cast_like
from fewstep.training.deadline import Deadline
from fewstep.training.interrupt import Interruption
from fewstep.training.optimizers import check_optimizer
from fewstep.training.progress import Progress
from fewstep.training.run_folder import RunFolder
from fewstep.training.state import State

PACES = 500
"""Of so many lines of metrics a run remembers how fast it was."""


class Trainable(Protocol):
    """What ``fit`` trains: a module with a loss of a meta-batch, such as :class:`fewstep.MetaLearner`."""

    def meta_loss(self, tasks: Task) -> Tensor:
        """A scalar to minimise."""
        ...


class TrainingDiverged(RuntimeError):  # noqa: N818 - says what happened
    """The loss or a parameter became NaN or infinite. ``iteration`` says when, counted from 0."""

    def __init__(self, message: str, iteration: int) -> None:
        super().__init__(message)
        self.iteration = iteration


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended training after a whole iteration; the run folder, if any, was saved."""

    def __init__(self, message: str, number: signal.Signals) -> None:
        super().__init__(message)
        self.signal = number


def fit(
    learner: Any,
    source: TaskSource,
    optimizer: torch.optim.Optimizer,
    *,
    iterations: int,
    meta_batch: int = 25,
    seed: int = 0,
    scheduler: Any = None,
    clip_value: float | None = None,
    clip_norm: float | None = None,
    validation: TaskSource | None = None,
    validate_every: int = 1000,
    num_validation_tasks: int = 100,
    validation_steps: int | None = None,
    metric: Callable[..., Tensor] | None = None,
    maximize: bool | None = None,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    deadline: float | None = None,
    log_every: int = 100,
    checkpoint_every: int = 1000,
    progress: bool = True,
    title: str = "training",
) -> list[dict[str, Any]]:
    """Minimises ``learner.meta_loss`` over meta-batches of tasks.

    Meta-batch i is a function of (seed, i) only. With a run folder, a run that was killed at any moment and resumed
    ends with the same parameters, bit for bit on the same machine, as one that was not.

    Args:
        learner: a :class:`fewstep.MetaLearner`, or any module with ``meta_loss(tasks)``.
        source: where tasks come from.
        optimizer: any ``torch.optim`` optimiser over ``learner.parameters()``, or one with ``meta_step(tasks) -> loss``
            that does all of an iteration itself, such as :class:`fewstep.rl.TRPO`.
        iterations: outer steps in all, those done before resuming included.
        meta_batch: tasks per outer step.
        seed: of the meta-batches.
        scheduler: a ``torch.optim.lr_scheduler``, stepped after every iteration.
        clip_value: clamps every entry of the meta-gradient to ±this.
        clip_norm: scales the meta-gradient down to this norm, after ``clip_value``.
        validation: tasks to validate on, always the same ones; the best learner is kept in the run folder.
        validate_every: iterations between validations.
        num_validation_tasks: how many.
        validation_steps: inner steps in validation; as in training if not given.
        metric: what validation measures; the learner's loss if not given.
        maximize: whether a larger metric is better; true for ``fewstep.accuracy`` and for returns if not given.
        run: a folder for metrics, TensorBoard events (where TensorBoard is installed) and checkpoints.
        resume: go on with the run in that folder, if there is one.
        deadline: a time of ``time.monotonic()``. Training stops before an iteration that would end later, or whose
            validation would, and saves.
        log_every: iterations per line of metrics.
        checkpoint_every: iterations between checkpoints.
        progress: show a progress bar on standard error.
        title: its title.

    Returns:
        The metrics: a dictionary per logging interval (``iteration``, ``loss``, and the optimiser's ``report()`` if it
        has one) and validation.

    Raises:
        TrainingDiverged: the loss or a parameter became NaN or infinite; the last good checkpoint stays.
        TrainingInterrupted: Ctrl-C; all was saved.
        FileExistsError: the run folder holds a run and ``resume`` is false.

    >>> import torch, fewstep
    >>> learner = fewstep.maml(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01)
    >>> optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    >>> metrics = fit(learner, fewstep.tasks.Sinusoids(), optimizer, iterations=20, log_every=10, progress=False)
    >>> [row["iteration"] for row in metrics]
    [10, 20]
    """
    counts = {
        "meta_batch": meta_batch,
        "log_every": log_every,
        "checkpoint_every": checkpoint_every,
        "validate_every": validate_every,
    }
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"fit: {name} must be at least 1; got {value}.")
    check_optimizer(optimizer, learner)
    if not isinstance(source, TaskSource):
        raise TypeError(f"fit: a task source has sample(n, generator); got {type(source).__name__}.")
    folder = None if run is None else RunFolder(run)
    if folder is not None and not resume and (folder.has_checkpoint() or folder.metrics_file.exists()):
        raise FileExistsError(f"{folder.path} already holds a run; resume it (resume=True) or name another folder.")
    state = State(learner, optimizer, scheduler)
    larger_is_better = metric is accuracy or getattr(learner, "maximize", False) if maximize is None else maximize
    if folder is not None and resume:
        if folder.has_checkpoint():
            state.restore(folder.load())
        folder.forget_after(state.iteration)
    history = [] if folder is None else folder.metrics()
    writer = _tensorboard(folder, state.iteration)

    def record(row: dict[str, Any]) -> None:
        history.append(row)
        if folder is not None:
            folder.log(row)
        if writer is not None:
            for name in row.keys() - {"iteration"}:
                writer.add_scalar(name, row[name], row["iteration"])

    meta_gradient = getattr(learner, "meta_gradient", None) or partial(_meta_gradient, learner)
    meta_step = getattr(optimizer, "meta_step", None)
    if meta_step is not None and (clip_value, clip_norm) != (None, None):
        raise ValueError(f"fit: {type(optimizer).__name__} takes its own steps; clip_value and clip_norm do not apply.")
    report = getattr(optimizer, "report", dict)
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    losses: list[Tensor] = []
    limit = Deadline(deadline)

    def validates(iteration: int) -> bool:
        return validation is not None and (iteration % validate_every == 0 or iteration == iterations)

    def validate(tasks: int) -> Evaluation:
        assert validation is not None
        return evaluate(learner, validation, tasks, validation_steps, metric, seed, stream=1)

    def try_validation(tasks: int) -> None:
        with replayed():
            validate(tasks)

    first_validation = state.latest_validation_seconds or 60.0  # rather too long, if it is not known
    begins = limit.leaves_time_to_begin(first_validation if validates(state.iteration + 1) else 0.0)
    bar = Progress(title, state.iteration, iterations, progress)
    began, before = time.monotonic(), state.seconds + state.validation_seconds
    lap_began, lap_from, first = began, state.iteration, state.iteration
    with Interruption() as interruption:
        try:
            for iteration in range(first, iterations if begins else first):
                learner.iteration = iteration
                limit.iteration_begins()
                tasks = cast_like(source.sample(meta_batch, generator(seed, iteration)), parameters)
                for parameter in parameters:
                    parameter.grad = None
                loss = meta_gradient(tasks) if meta_step is None else meta_step(tasks)
                if clip_value is not None:
                    nn.utils.clip_grad_value_(parameters, clip_value)
                if clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, clip_norm)
                if meta_step is None:
                    optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                losses.append(loss)
                done = state.iteration = iteration + 1
                limit.iteration_ends(loss.item)
                if iteration == first:
                    state.starting_seconds = time.monotonic() - began
                ahead = validates(done) + validates(done + 1)
                late = done < iterations and not limit.leaves_time(ahead, try_validation, num_validation_tasks)
                last = late or done == iterations or interruption.requested is not None
                bar.update(done, loss.item, force=done == iterations)
                saves = last or done % checkpoint_every == 0
                if saves or done % log_every == 0:
                    state.paces = [*state.paces, (time.monotonic() - lap_began) / (done - lap_from)][-PACES:]
                    record({"iteration": done, "loss": _mean_of(losses, done, folder), **report()})
                    losses.clear()
                if validates(done):
                    validation_began = time.monotonic()
                    found = validate(num_validation_tasks)
                    state.latest_validation_seconds = time.monotonic() - validation_began
                    state.validation_seconds += state.latest_validation_seconds
                    limit.validation_took(state.latest_validation_seconds)
                    mean, interval = found.mean[-1], found.ci95[-1]
                    record({"iteration": done, "validation": mean, "validation_ci95": interval})
                    bar.validated(f"validation {format_metric(found.metric, mean, interval)} at iteration {done:,}")
                    if state.best is None or (mean > state.best if larger_is_better else mean < state.best):
                        state.best = mean
                        if folder is not None:
                            folder.save({"learner": learner.state_dict(), "iteration": done}, "best")
                if saves:
                    _check_parameters(learner, done, folder)
                    if folder is not None:
                        state.seconds = before + time.monotonic() - began - state.validation_seconds
                        folder.save(state.snapshot())
                if not losses:
                    lap_began, lap_from = time.monotonic(), done
                if interruption.requested is not None and done < iterations:
                    raise TrainingInterrupted(_how_to_go_on(done, iterations, folder), interruption.requested)
                if late:
                    break
        finally:
            bar.close()
            if writer is not None:
                writer.close()
    return history


def _meta_gradient(learner: Trainable, tasks: Task) -> Tensor:
    loss = learner.meta_loss(tasks)
    loss.backward()
    return loss.detach()


def _mean_of(losses: list[Tensor], done: int, folder: RunFolder | None) -> float:
    stacked = torch.stack(losses)
    bad = (~torch.isfinite(stacked)).nonzero()
    if len(bad):
        first = done - len(losses) + int(bad[0])
        _diverged(f"The meta-loss became {stacked[bad[0]].item()} at iteration {first}", first, folder)
    return float(stacked.mean())


def _check_parameters(learner: nn.Module, done: int, folder: RunFolder | None) -> None:
    for name, value in learner.named_parameters():
        if value.is_floating_point() and not torch.isfinite(value).all():
            _diverged(f"Parameter {name} became NaN or infinite by iteration {done}", done, folder)


def _diverged(what: str, iteration: int, folder: RunFolder | None) -> None:
    kept = "."
    if folder is not None and folder.has_checkpoint():
        kept = f"; the last good checkpoint is {folder.checkpoint_file()} (iteration {folder.load()['iteration']})."
    raise TrainingDiverged(
        f"{what}{kept} Try a lower inner or outer learning rate, clip_norm=10 or clip_value=10, fewer inner steps, "
        "or float64; and look for NaN in the data of that meta-batch.",
        iteration,
    )


def _how_to_go_on(done: int, iterations: int, folder: RunFolder | None) -> str:
    if folder is None:
        return f"Stopped after {done:,} of {iterations:,} iterations; without a run folder nothing was saved."
    return (
        f"Stopped after {done:,} of {iterations:,} iterations and saved {folder.path}. "
        f"Go on with: fewstep train --resume {folder.path}"
    )


def _tensorboard(folder: RunFolder | None, iteration: int) -> Any:
    if folder is None or importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder.path / "tensorboard"), purge_step=iteration + 1 if iteration else None)
