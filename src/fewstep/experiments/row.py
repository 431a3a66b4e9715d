"""A row of a paper's table: a named experiment, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from fewstep.experiments.other_norms import OtherNorm

Comparison = Literal["papers", "budget", "ablation"]
"""papers: with a paper's settings; budget: all methods after equally many training tasks; ablation: parts of MAML++."""


class Printed(NamedTuple):
    """A number as a paper prints it.

    Args:
        mean: the number.
        ci95: half of the 95% interval beside it, if there is one.
        source: the paper and its table.
    """

    mean: float
    ci95: float | None
    source: str


@dataclass(frozen=True)
class Row:
    """A named experiment: one row of a paper's table.

    Args:
        name: data-ways-shots-method; the name of the run folder and of the files of results begins with it.
        summary: one line.
        config: the experiment with the row's settings.
        table: the table of ``fewstep reproduce`` that it belongs to.
        label: its short name within a comparison.
        comparison: which part of the table it stands in.
        section: where ``fewstep list`` shows it: rows are sorted by section, and within a section by method.
        by_default: whether ``fewstep reproduce`` trains it when no rows are named.
        paper: the paper's numbers, by number of inner steps.
        paper_ci95: half of the 95% intervals that the paper prints beside them.
        source: the paper and its table.
        training: fields of [`Training`][fewstep.experiments.training.Training] that differ from the default.
        other_shots: numbers of shots that it is tested with in addition to its own.
        other_norms: normalisation policies that it is tested under in addition to its own.
    """

    name: str
    summary: str
    config: Any
    table: str
    label: str
    comparison: Comparison = "papers"
    section: tuple[int, ...] = ()
    by_default: bool = True
    paper: dict[int, float] = field(default_factory=dict)
    paper_ci95: dict[int, float] = field(default_factory=dict)
    source: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    other_shots: tuple[int, ...] = ()
    other_norms: tuple[OtherNorm, ...] = ()
