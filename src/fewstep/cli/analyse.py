"""``fewstep analyse``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from fewstep.cli.option_values import Argument
from fewstep.cli.parsing import parse
from fewstep.cli.run_folder import Hardware, open_run
from fewstep.cli.tables import print_table
from fewstep.experiments.option_types import Count, Number


@dataclass(frozen=True)
class Analyse:
    """Measure what adaptation changes in a run: with blocks frozen, similarity of each layer before and after, and NIL.

    Writes analysis.json and feature-reuse.png into the run folder. It applies to methods that adapt by gradient steps.

    Example:
        fewstep analyse runs/sinusoid-5shot-maml-seed0
    """

    run: Annotated[Path, Argument]
    """The run folder."""
    tasks: Count = 200
    """Number of test tasks."""
    steps: Number | None = None
    """Inner steps. If not given, those of the experiment at test."""
    queries: Count | None = None
    """Query examples (of each class for images) on which features are compared. If not given, up to 30, or 500 points
    of a sine wave. Accuracy is measured with the number of the experiment's protocol."""
    seed: Number = 0
    """Seed of the test tasks."""
    checkpoint: Literal["best", "last"] | None = None
    """The best checkpoint in validation, or the last. If not given, the choice of the experiment."""
    hardware: Hardware = field(default_factory=Hardware)
    """Where to compute. By default, as in training."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    options = parse(Analyse, "analyse", words)
    from fewstep.parallel import together  # with torch, which the help does without

    with together():
        analyse(options)


def analyse(options: Analyse) -> None:
    """Analyses the run, and prints its tables."""
    from fewstep.cli.tested import checkpoint_of, examples_of
    from fewstep.evaluation.numbers import format_metric
    from fewstep.experiments import analysis

    run = open_run(options.run, options.hardware)
    found = analysis.analyse(run, options.tasks, options.steps, options.queries, options.seed, options.checkpoint)
    metric, similarity, frozen = found["metric"], found["similarity"], found["freezing"]
    print(f"{checkpoint_of(run, found)}; {found['tasks']} test tasks, {found['steps']} inner steps\n")
    layers = [
        [layer, *(f"{of['mean'][place]:.3f} ± {of['ci95'][place]:.3f}" for of in similarity.values())]
        for place, layer in enumerate(similarity["CKA"]["names"])
    ]
    title = f"Similarity of features before and after adaptation, {examples_of(run, found['queries_of_similarity'])}"
    print_table(title, ["layer", *similarity], layers)
    numbers = [format_metric(metric, *of) for of in zip(frozen["mean"], frozen["ci95"], strict=True)]
    names = ["none", *(f"up to {name}" for name in frozen["names"][1:])]
    rows = [[name, number] for name, number in zip(names, numbers, strict=True)]
    if found["nil"] is not None:
        rows.append(["NIL: no head, no adaptation", format_metric(metric, found["nil"]["mean"], found["nil"]["ci95"])])
    title = f"Blocks frozen at test, {examples_of(run, found['queries'])}"
    print_table(title, ["blocks not adapted", f"{metric} ± 95% CI"], rows)
    if len(frozen["names"]) == 1:
        print("This method adapts no block, so no block can be frozen.")
    for file in found["files"]:
        print(f"Wrote {file}")
