"""What a run cost: training time and adaptation time, and on what."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from fewstep.evaluation.adaptation_time import adaptation_seconds
from fewstep.experiments.experiment import Experiment
from fewstep.experiments.training import Training
from fewstep.training import fit
from fewstep.training.processor import processor


def costs(
    experiment: Experiment, training: Training, state: dict[str, Any], learner: Any, steps: int, tasks: int
) -> dict[str, Any]:
    """The part of ``results.json`` that speaks of time.

    The time per 1,000 training tasks is what training took on this processor; of a run that was trained on another one,
    or compiled on a CPU, it is measured here as :func:`seconds_per_iteration` does.

    Args:
        experiment: what was trained.
        training: on what it is tested.
        state: the newest checkpoint, which knows how long training took.
        learner: the one that is tested.
        steps: inner steps at test.
        tasks: test tasks; the time of up to 20 is taken.
    """
    here = processor(training.device)
    trained_on = state.get("processors", [here])
    if here == trained_on[-1] and (training.on_gpu or not training.compile):
        pace = statistics.median(state.get("paces") or [state["seconds"] / state["iteration"]])
    else:
        pace = seconds_per_iteration(experiment, training, iterations=5)
    return {
        "training_tasks": round(state["iteration"] * experiment.tasks_per_iteration),
        "training_seconds": state["seconds"],
        "validation_seconds": state.get("validation_seconds", 0.0),
        "trained_on": trained_on,
        "seconds_per_1000_tasks": 1000 * pace / experiment.tasks_per_iteration,
        "adaptation_seconds": adaptation_seconds(learner, experiment.test_source(), steps, min(tasks, 20)),
        "threads": torch.get_num_threads(),
        "processor": here,
    }


def seconds_per_iteration(
    experiment: Experiment, training: Training, iterations: int = 1, tasks: int | None = None
) -> float:
    """Of a fresh learner, on a CPU not compiled: the mean over some iterations after one that is not timed.

    Args:
        experiment: what is to be trained.
        training: on what.
        iterations: how many are timed.
        tasks: of each, if fewer than the meta-batch; the time is scaled up.
    """
    if training.threads:
        torch.set_num_threads(training.threads)
    whole = tasks is None or experiment.method.fixed_pool
    size = experiment.meta_batch if whole else min(tasks or 1, experiment.meta_batch)
    learner = experiment.learner("record" if training.on_gpu else False)
    learner = learner.to(training.device, getattr(torch, training.dtype))
    optimizer, source = experiment.outer_optimizer(learner), training.placed(experiment.train_source())
    fit(learner, source, optimizer, iterations=1, meta_batch=size, progress=False)  # looks at the first tasks
    began = time.monotonic()
    fit(learner, source, optimizer, iterations=iterations, meta_batch=size, progress=False)
    return (time.monotonic() - began) / iterations * experiment.meta_batch / size
