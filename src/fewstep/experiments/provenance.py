"""Where results come from: settings, versions, commit."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import torch

import fewstep
from fewstep.experiments.experiment import Experiment
from fewstep.experiments.settings import settings_of
from fewstep.experiments.training import Training


def provenance(experiment: Experiment, training: Training) -> dict[str, Any]:
    """Settings and versions, which every file of results contains."""
    return {
        "config": settings_of(experiment),
        "training": dataclasses.asdict(training),
        "fewstep": fewstep.__version__,
        "torch": torch.__version__,
        "commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of the library's source in a checkout; it ends in ``-dirty`` if there are uncommitted changes."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
