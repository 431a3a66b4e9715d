"""Which run a command takes, and on which hardware it goes through it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.experiments.option_types import Number

if TYPE_CHECKING:
    from fewstep.experiments.runs import Run


@dataclass(frozen=True)
class Hardware:
    """Where to compute."""

    device: str | None = None
    """Device: cpu, cuda, cuda:1 or mps."""
    threads: Number | None = None
    """CPU threads. Small networks are fastest with 1; 0 leaves the number to PyTorch."""


def open_run(path: Path, hardware: Hardware) -> Run:
    """The run of an experiment in a folder.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: it was trained with [`fit`][fewstep.fit], so that only its caller knows the learner and the tasks.
    """
    from fewstep.experiments.runs import Run
    from fewstep.training import RunFolder

    folder = RunFolder(path)
    if folder.config_file.is_file() or not folder.has_run():
        return Run(path, hardware.device, hardware.threads)
    which = "last" if folder.checkpoints() == ["last"] else "best"
    raise ValueError(
        f"{path} was trained by fewstep.fit. It has no experiment (config.json), so this command does not know its "
        "learner and tasks. Use Python:\n\n"
        "    import fewstep as fs\n\n"
        "    learner = fs.maml(...)  # as it was made for training\n"
        f'    fs.load("{path}", learner, which="{which}")\n'
        "    print(fs.evaluate(learner, test_tasks, num_tasks=600))\n\n"
        f'To resume: fs.fit(learner, ..., run="{path}", resume=True). To draw its learning curve: fewstep plot {path}'
    )
