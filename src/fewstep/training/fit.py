"""The outer loop: MAML's Algorithm 1."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from fewstep.parallel.context import joined
from fewstep.tasks import Task, TaskSource, generator
from fewstep.tasks.batch import cast_like
from fewstep.training.arguments import check_arguments
from fewstep.training.opening import opened
from fewstep.training.optimizers import check_optimizer, default_optimizer
from fewstep.training.recorder import Recorder
from fewstep.training.session import Session
from fewstep.training.state import State
from fewstep.training.validation import Validation


class Trainable(Protocol):
    """What `fit` trains: a module with a loss of a meta-batch, such as [`MetaLearner`][fewstep.MetaLearner]."""

    def meta_loss(self, tasks: Task) -> Tensor:
        """A scalar to minimise."""
        ...


def fit(
    learner: Any,
    source: TaskSource,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    iterations: int,
    meta_batch: int = 25,
    seed: int = 0,
    scheduler: Any = None,
    clip_value: float | None = None,
    clip_norm: float | None = None,
    validation: TaskSource | None = None,
    validate_every: int | None = None,
    num_validation_tasks: int | None = None,
    validation_steps: int | None = None,
    metric: Callable[..., Tensor] | None = None,
    maximize: bool | None = None,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    override: Iterable[str] = (),
    on_nan: Literal["raise", "skip"] = "raise",
    deadline: float | None = None,
    log_every: int = 100,
    checkpoint_every: int = 1000,
    progress: bool = True,
    title: str = "training",
) -> list[dict[str, Any]]:
    """Minimises `learner.meta_loss` over meta-batches of tasks (MAML, Algorithm 1).

    Meta-batch i is a function of (seed, i) only. With a run folder, a run that was killed at any moment and resumed
    ends with the same parameters, bit for bit on the same machine, as one that was not.

    The processes of `torchrun` share each meta-batch and the validation tasks; see the guide on several processes. Only
    the first one writes files and shows progress.

    Args:
        learner: a [`MetaLearner`][fewstep.MetaLearner], or any module with `meta_loss(tasks)`. A wrapper of
            `DistributedDataParallel` is taken off.
        source: where training tasks come from.
        optimizer: any `torch.optim` optimiser over `learner.parameters()`, or one with `meta_step(tasks) -> loss` that
            does a whole iteration itself, such as [`TRPO`][fewstep.rl.TRPO]. By default Adam with a learning rate of
            1e-3 over the learner's parameters that require gradients.
        iterations: outer steps in all, including those before resuming.
        meta_batch: tasks per outer step.
        seed: seed of the meta-batches.
        scheduler: a `torch.optim.lr_scheduler`, stepped after every iteration.
        clip_value: clamps every entry of the meta-gradient to ±`clip_value`.
        clip_norm: scales the meta-gradient down to this norm, after `clip_value`.
        validation: where validation tasks come from. They are the same at every validation; the best learner is saved
            in the run folder.
        validate_every: iterations between validations; 1000 if not given.
        num_validation_tasks: number of validation tasks; 100 if not given.
        validation_steps: inner steps in validation; by default as in training.
        metric: what validation measures; by default the learner's loss.
        maximize: whether a larger metric is better; by default true for `fewstep.accuracy` and for returns.
        run: a folder for metrics, checkpoints, and TensorBoard events where TensorBoard is installed.
        resume: resume the run in that folder, if there is one. Another seed, `meta_batch`, clipping, optimiser or
            scheduler than before, or other settings of the last two, are refused with a list.
        override: names of settings of which the resumed run takes the new values, such as `["lr", "clip_norm"]`. With a
            scheduler, the rate continues as if the schedule had had the new values from the start.
        on_nan: `"raise"` ends training when the loss or its gradient is NaN or infinite. `"skip"` skips the step of
            such a meta-batch, counts it as `skipped` in the metrics, and ends training after 100 in a row. On a GPU,
            `"skip"` waits for the device at every iteration.
        deadline: a time of `time.monotonic()`. Training stops, and saves, before an iteration or its validation would
            end later.
        log_every: iterations per row of metrics.
        checkpoint_every: iterations between checkpoints.
        progress: show progress on standard error.
        title: title of the progress.

    Returns:
        The metrics: a dictionary for every `log_every` iterations (`iteration`, `loss`, and the optimiser's `report()`
        if it has one) and for every validation.

    Raises:
        TrainingDiverged: the loss, its gradient or a parameter became NaN or infinite. The learner has its last finite
            parameters, and the last good checkpoint stays. The message names the task.
        TrainingInterrupted: SIGINT (Ctrl-C), SIGTERM, SIGHUP or SIGUSR1. The iteration was completed, and all saved.
        BlockingIOError: another process trains in the run folder.
        FileExistsError: the run folder holds a run and `resume` is false.
        FileNotFoundError: the run to resume has metrics but no checkpoint.
        NotADirectoryError: `run` is a file.
        TypeError: `learner`, `source`, `optimizer` or a number is of another kind.
        ValueError: a number is out of bounds, an option of validation is given without `validation`, a source ignores
            its generator or returns another number of tasks than asked for, the optimiser holds none of the learner's
            parameters, or the run to resume has another learner or other settings, which are listed.

    Examples:
        >>> import fewstep as fs
        >>> learner = fs.maml(fs.models.MLP(1, [8], 1), fs.mse, inner_lr=0.01)
        >>> metrics = fs.fit(learner, fs.tasks.Sinusoids(), iterations=20, log_every=10, progress=False)
        >>> [row["iteration"] for row in metrics]
        [10, 20]
    """
    counts = {"iterations": iterations, "meta_batch": meta_batch, "log_every": log_every}
    counts |= {"checkpoint_every": checkpoint_every, "validate_every": 1000, "num_validation_tasks": 100}
    clipping = {"clip_value": clip_value, "clip_norm": clip_norm}
    validating = _given(validate_every=validate_every, num_validation_tasks=num_validation_tasks)
    counts |= validating
    validating |= _given(validation_steps=validation_steps, metric=metric, maximize=maximize)
    learner = learner.module if isinstance(learner, nn.parallel.DistributedDataParallel) else learner
    check_arguments(learner, counts, clipping, source, validation, validating, seed, scheduler, run, deadline)
    _check_choices(run, resume, override, on_nan)
    optimizer = default_optimizer(learner) if optimizer is None else optimizer
    check_optimizer(optimizer, learner, clipping)
    state = State(learner, optimizer, scheduler, seed=seed, meta_batch=meta_batch, **clipping)
    tested = Validation(
        learner, validation, counts["validate_every"], counts["num_validation_tasks"], validation_steps, metric,
        maximize, seed,
    )  # fmt: skip
    kinds = {"learner": type(learner).__name__, "optimizer": type(optimizer).__name__}
    settings = {**kinds, **counts, **clipping, "seed": seed, "metric": tested.metric_name}
    meta_step = getattr(optimizer, "meta_step", None)
    meta_gradient = getattr(learner, "meta_gradient", None) or _backward_of(learner)
    parameters = [value for group in optimizer.param_groups for value in group["params"]]

    with (
        joined() as processes,
        opened(run, state, resume, override, checkpoint_every, processes) as folder,
        Session(
            state, folder, Recorder(folder, state.iteration, settings), tested, processes, deadline=deadline,
            iterations=iterations, log_every=log_every, checkpoint_every=checkpoint_every, skips_nan=on_nan == "skip",
            progress=progress, title=title, report=getattr(optimizer, "report", dict),
        ) as session,
    ):  # fmt: skip
        for iteration in session.iterations():
            tasks = cast_like(source.sample(meta_batch, generator(seed, iteration)), parameters)
            optimizer.zero_grad()
            loss = session.loss(meta_step or meta_gradient, tasks)
            if clip_value is not None:
                nn.utils.clip_grad_value_(parameters, clip_value)
            if session.is_finite(loss, with_gradient=meta_step is None) and meta_step is None:
                if clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, clip_norm)
                optimizer.step()
            if scheduler is not None:
                scheduler.step()
            session.ends(loss)
        return session.rows


def _backward_of(learner: Trainable) -> Callable[[Task], Tensor]:
    """Adds the gradient of the meta-loss to the parameters' `grad`, and returns the loss."""

    def meta_gradient(tasks: Task) -> Tensor:
        loss = learner.meta_loss(tasks)
        loss.backward()
        return loss.detach()

    return meta_gradient


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _check_choices(run: Any, resume: bool, override: Iterable[str], on_nan: str) -> None:
    if resume and run is None:
        raise ValueError("fit: resume=True needs the folder of the run; pass run=...")
    if isinstance(override, str):
        raise TypeError(f'fit: override= is a list of names, such as ["lr"]; got {override!r}.')
    if override and not resume:
        raise ValueError("fit: override= changes the settings of a run that is resumed; pass resume=True.")
    if on_nan not in ("raise", "skip"):
        raise ValueError(f'fit: on_nan must be "raise" or "skip"; got {on_nan!r}.')
