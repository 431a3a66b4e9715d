"""What a run cost: training time and adaptation time, and on what."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from fewstep.evaluation.adaptation_time import adaptation_seconds
from fewstep.experiments.experiment import Experiment
from fewstep.training.processor import processor


def costs(experiment: Experiment, state: dict[str, Any], learner: Any, steps: int, tasks: int) -> dict[str, Any]:
    """The part of ``results.json`` that speaks of time.

    Args:
        experiment: what was trained.
        state: the newest checkpoint, which knows how long training took.
        learner: the one that is tested.
        steps: inner steps at test.
        tasks: test tasks; the time of up to 20 is taken.
    """
    here = processor(next(iter(learner.parameters())).device)
    seen = state["iteration"] * experiment.tasks_per_iteration
    pace = statistics.median(state.get("paces") or [state["seconds"] / state["iteration"]])
    return {
        "training_tasks": round(seen),
        "training_seconds": state["seconds"],
        "validation_seconds": state.get("validation_seconds", 0.0),
        "seconds_per_1000_tasks": 1000 * pace / experiment.tasks_per_iteration,
        "adaptation_seconds": adaptation_seconds(learner, experiment.test_tasks(), steps, min(tasks, 20)),
        "threads": torch.get_num_threads(),
        "processor": state.get("processor", here),
        "test_processor": here,
    }
