"""``fewstep report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from fewstep.cli.parsing import parse
from fewstep.report import write_report


@dataclass(frozen=True)
class Report:
    """Write one HTML file about one or several runs: curves, results beside the paper's, an example, cost, settings.

    The file needs no network and no other file. Runs need not be finished.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """One or several run folders, also of fewstep.fit."""
    to: Path | None = None
    """The file to write; report.html in the run folder, or beside the first of several, if not given."""
    example: bool = True
    """Adapt each learner to an example task and draw what it does."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    report(parse(Report, "report", words))


def report(options: Report) -> None:
    """``fewstep report``"""
    if not options.runs:
        raise ValueError("report needs at least one run folder: fewstep report runs/sinusoid-5shot-maml-seed0")
    print(f"Wrote {write_report(options.runs, options.to, options.example)}")
