"""``fewstep evaluate``."""

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
class Evaluate:
    """Evaluate a run on many test tasks, before adaptation and after each inner step, and write the results.

    Without options, the test is that of the experiment, and its results are results.json in the run folder. Otherwise
    the name of the file tells the options, as in results-tasks-50-steps-4.json. Tables and figures use results.json.

    Examples:
        fewstep evaluate runs/sinusoid-5shot-maml-seed0
        fewstep evaluate runs/glyphs-5way-1shot-seed0 --shots 5 10 --norm batch
    """

    run: Annotated[Path, Argument]
    """The run folder."""
    tasks: Count | None = None
    """Number of test tasks. If not given, that of the experiment: 600, or 40 for reinforcement learning."""
    steps: Number | None = None
    """Inner steps. If not given, those of the experiment, such as 10 for sine waves."""
    queries: Count | None = None
    """Query examples (of each class for images). If not given, the number of the experiment's protocol. With batch
    statistics (`--norm batch`) all queries of a task are normalised together, and more of them raise the accuracy."""
    shots: tuple[Count, ...] = ()
    """Evaluate with these numbers of support examples as well. If not given, with those of the experiment."""
    norm: tuple[Literal["batch", "support"], ...] = ()
    """Evaluate the same weights with these normalisation policies as well: statistics of the batch, or of the support
    set (not transductive). If not given, with those of the experiment."""
    episodes: Count | None = None
    """For reinforcement learning: episodes for each update. If not given, those of the experiment."""
    goals: Literal["drawn", "paper"] | None = None
    """For 2D navigation: goals drawn at random, or the 40 goals of the paper's code. If not given, those of the
    experiment."""
    seed: Number = 0
    """Seed of the test tasks."""
    checkpoint: Literal["best", "last"] | None = None
    """The best checkpoint in validation, or the last. If not given, the choice of the experiment."""
    hardware: Hardware = field(default_factory=Hardware)
    """Where to compute. By default, as in training."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    options = parse(Evaluate, "evaluate", words)
    from fewstep.parallel import together  # with torch, which the help does without

    with together():
        evaluate(options)


def evaluate(options: Evaluate) -> None:
    """Evaluates the run, and prints a table beside the paper's numbers."""
    from fewstep.cli.tested import checkpoint_of, examples_of
    from fewstep.evaluation.numbers import format_metric
    from fewstep.experiments.catalogue import EXPERIMENTS

    run = open_run(options.run, options.hardware)
    found = run.evaluate(
        options.tasks, options.steps, options.seed, options.checkpoint, options.shots, options.queries, options.norm,
        options.episodes, options.goals,
    )  # fmt: skip
    metric, paper, others = found["metric"], EXPERIMENTS[run.name].paper, found.get("other_norms", {})
    columns = [found, *others.values()]
    own = f", {run.experiment.norm} norms" if others else ""
    header = ["gradient steps", f"{metric} ± 95% CI{own}", *(f"{norm} norms" for norm in others), "paper"]
    rows = [
        [
            str(step),
            *(format_metric(metric, column["mean"][step], column["ci95"][step]) for column in columns),
            format_metric(metric, paper[step]) if step in paper else "",
        ]
        for step in range(found["steps"] + 1)
    ]
    what = f"{found['tasks']} test tasks, {examples_of(run, found['queries'], found['config'])}"
    print_table(f"{checkpoint_of(run, found)}; {what}", header, rows)
    for shots, other in found.get("other_shots", {}).items():
        number = format_metric(metric, other["mean"][-1], other["ci95"][-1])
        print(f"with {shots} shots: {number} after {found['steps']} steps")
    print(f"Wrote {found['file']}")
