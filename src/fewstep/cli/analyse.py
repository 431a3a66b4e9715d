"""``fewstep analyse``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fewstep.cli.parsing import parse
from fewstep.cli.tables import print_table
from fewstep.cli.tested import checkpoint_of, examples_of
from fewstep.evaluation.numbers import format_metric
from fewstep.experiments.runs import Run


@dataclass(frozen=True)
class Analyse:
    """Measure what adaptation changes in a run: freezing blocks, similarity of each layer before and after, and NIL.

    Writes analysis.json and feature-reuse.png into the run folder. For methods that adapt in gradient steps.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    tasks: int = 200
    """Number of test tasks."""
    steps: int | None = None
    """Inner steps; the experiment's own at test if not given."""
    queries: int | None = None
    """Query examples (of a class) to compare features on; as many as there are, up to 30, if not given (500 points of
    a sine wave). Accuracies are measured with the experiment's own number."""
    seed: int = 0
    """Of the test tasks."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint: best in validation, or last; the experiment's own choice if not given."""
    device: str | None = None
    """Where: cpu, cuda, cuda:1, mps; where it was trained if not given."""
    threads: int | None = None
    """CPU threads; as in training if not given."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    analyse(parse(Analyse, "analyse", words))


def analyse(options: Analyse) -> None:
    """``fewstep analyse``"""
    from fewstep.experiments import analysis

    run = Run(options.run, options.device, options.threads)
    found = analysis.analyse(run, options.tasks, options.steps, options.queries, options.seed, options.checkpoint)
    metric, similarity, frozen = found["metric"], found["similarity"], found["freezing"]
    print(f"{checkpoint_of(run, found)}; {found['tasks']} test tasks, {found['steps']} inner steps\n")
    layers = [
        [layer, *(f"{of['mean'][place]:.3f} ± {of['ci95'][place]:.3f}" for of in similarity.values())]
        for place, layer in enumerate(similarity["CKA"]["names"])
    ]
    title = f"Features before against after adaptation, {examples_of(run, found['queries_of_similarity'])}"
    print_table(title, ["layer", *similarity], layers)
    numbers = [format_metric(metric, *of) for of in zip(frozen["mean"], frozen["ci95"], strict=True)]
    names = ["none", *(f"up to {name}" for name in frozen["names"][1:])]
    rows = [[name, number] for name, number in zip(names, numbers, strict=True)]
    if found["nil"] is not None:
        rows.append(
            ["NIL: no head, nothing adapted", format_metric(metric, found["nil"]["mean"], found["nil"]["ci95"])]
        )
    title = f"With blocks frozen at test, {examples_of(run, found['queries'])}"
    print_table(title, ["blocks not adapted", f"{metric} ± 95% CI"], rows)
    if len(frozen["names"]) == 1:
        print("No block is adapted by this method, so there is none to freeze.")
    for file in found["files"]:
        print(f"Wrote {file}")
