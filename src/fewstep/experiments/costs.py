"""What a run cost: training time and adaptation time, and on what."""

from __future__ import annotations

import platform
import statistics
from pathlib import Path
from typing import Any

import torch

from fewstep.evaluation.adaptation_time import adaptation_seconds
from fewstep.experiments.experiment import Experiment, Training


def costs(
    experiment: Experiment, training: Training, state: dict[str, Any], learner: Any, steps: int, tasks: int
) -> dict[str, Any]:
    """The part of ``results.json`` that speaks of time.

    Args:
        experiment: what was trained.
        training: how.
        state: the newest checkpoint, which knows how long training took.
        learner: the one that is tested.
        steps: inner steps at test.
        tasks: test tasks; the time of up to 20 is taken.
    """
    seen = state["iteration"] * experiment.tasks_per_iteration
    pace = statistics.median(state.get("paces") or [state["seconds"] / state["iteration"]])
    return {
        "training_tasks": round(seen),
        "training_seconds": state["seconds"],
        "validation_seconds": state.get("validation_seconds", 0.0),
        "seconds_per_1000_tasks": 1000 * pace / experiment.tasks_per_iteration,
        "adaptation_seconds": adaptation_seconds(learner, experiment.test_tasks(), steps, min(tasks, 20)),
        "threads": torch.get_num_threads(),
        "processor": processor(training.device),
    }


def processor(device: str = "cpu") -> str:
    """The name of the CPU or GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
