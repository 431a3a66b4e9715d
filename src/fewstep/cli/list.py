"""``fewstep list``."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from fewstep.cli.option_values import Argument
from fewstep.cli.parsing import parse
from fewstep.evaluation.numbers import format_metric
from fewstep.experiments.catalogue import EXPERIMENTS


@dataclass(frozen=True)
class List:
    """List the experiments, with a summary and the paper's numbers.

    Examples:
        fewstep list sinusoid
        fewstep list '*-5shot-*'
    """

    pattern: Annotated[str, Argument] = "*"
    """Only names that contain this text, or that match it as a shell-style pattern with * and ?."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    list_experiments(parse(List, "list", words))


def list_experiments(options: List) -> None:
    """Prints a line for each experiment.

    Raises:
        ValueError: no name matches.
    """
    pattern = options.pattern
    exact = any(sign in pattern for sign in "*?[")
    rows = [row for name, row in EXPERIMENTS.items() if (fnmatchcase(name, pattern) if exact else pattern in name)]
    if not rows:
        raise ValueError(f"no experiment matches {pattern!r}. `fewstep list` shows all.")
    width = max(len(row.name) for row in rows)
    for row in rows:
        metric = row.config.metric.__name__
        paper = ", ".join(f"{format_metric(metric, value)} after {k}" for k, value in row.paper.items())
        print(f"{row.name:<{width}}  {row.summary}" + (f"  [paper: {paper} steps]" if paper else ""))
