"""``fewstep report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fewstep.cli.option_values import Argument
from fewstep.cli.parsing import parse


@dataclass(frozen=True)
class Report:
    """Write one HTML file about one or several runs.

    It shows curves, results beside the paper's, an example, cost, how to resume, and settings; several runs side by
    side. The file needs no network and no other file. Runs need not be finished.

    Example:
        fewstep report runs/sinusoid-5shot-maml-seed0
    """

    runs: Annotated[tuple[Path, ...], Argument]
    """One or several run folders, also of fewstep.fit."""
    to: Path | None = None
    """The file to write. By default report.html in the run folder, or beside the first of several."""
    example: bool = True
    """Adapt each learner to an example task and draw the result."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    report(parse(Report, "report", words))


def report(options: Report) -> None:
    """Writes the report and prints the name of its file."""
    from fewstep.report import write_report

    if options.to is not None and options.to.is_dir():
        raise ValueError(
            f"--to: expected a file; {options.to} is a folder. For example, --to {options.to}/report.html."
        )
    print(f"Wrote {write_report(options.runs, options.to, options.example)}")
