"""``fewstep plot``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from fewstep.cli.parsing import parse
from fewstep.experiments.runs import Run


@dataclass(frozen=True)
class Plot:
    """Draw a run's figures into its folder: learning curve, inner steps if it was tested, and the experiment's own."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    device: str | None = None
    """Where: cpu, cuda, cuda:1, mps; where it was trained if not given."""
    threads: int | None = None
    """CPU threads; as in training if not given."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    plot(parse(Plot, "plot", words))


def plot(options: Plot) -> None:
    """``fewstep plot``"""
    run = Run(options.run, options.device, options.threads)
    for file in run.plot():
        print(f"Wrote {file}")
    if not run.folder.results_file.is_file():
        print(f"For results over inner steps: fewstep evaluate {run.folder.path}, then plot again.")
