"""``fewstep evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fewstep.cli.parsing import parse
from fewstep.cli.tables import print_table
from fewstep.cli.tested import checkpoint_of, examples_of
from fewstep.evaluation.numbers import format_metric
from fewstep.experiments.other_norms import OtherNorm
from fewstep.experiments.runs import EXPERIMENTS, Run


@dataclass(frozen=True)
class Evaluate:
    """Test a run over many tasks, before adaptation and after every inner step, and write its results.json."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    tasks: int | None = None
    """Number of test tasks; the experiment's own if not given: 600, and 40 for reinforcement learning."""
    steps: int | None = None
    """Inner steps; the experiment's own if not given (10 for the sinusoid)."""
    queries: int | None = None
    """Query examples (of a class); the experiment's own if not given: as many as shots for images, the papers' number.
    Under batch norms they are classified together, so that more of them help."""
    shots: tuple[int, ...] = ()
    """Test with these numbers of support examples as well."""
    norm: tuple[OtherNorm, ...] = ()
    """Test the same weights under these normalisation policies as well: batch, support (not transductive)."""
    episodes: int | None = None
    """In reinforcement learning, episodes for each update; the experiment's own if not given: 40 for 2D navigation."""
    goals: Literal["drawn", "paper"] | None = None
    """In 2D navigation, the goals to test on: drawn at random, or the paper's 40; the experiment's own if not given."""
    seed: int = 0
    """Of the test tasks."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint: best in validation, or last; the experiment's own choice if not given."""
    device: str | None = None
    """Where to test: cpu, cuda, cuda:1, mps; where it was trained if not given."""
    threads: int | None = None
    """CPU threads; as in training if not given."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    evaluate(parse(Evaluate, "evaluate", words))


def evaluate(options: Evaluate) -> None:
    """``fewstep evaluate``"""
    run = Run(options.run, options.device, options.threads)
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
    print(f"Wrote {run.folder.results_file}")
