"""``fewstep train``."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from pathlib import Path

import tyro

from fewstep.cli.parsing import parse
from fewstep.experiments.experiment import Training
from fewstep.experiments.runs import Run, find


@dataclass(frozen=True)
class Place:
    """Where the run goes."""

    run: Path | None = None
    """The run folder; runs/EXPERIMENT-seedS if not given."""


@dataclass(frozen=True)
class Train:
    """Train an experiment, or go on with a run.

    `fewstep list` shows the experiments, and `fewstep train EXPERIMENT --help` the options of one.
    """

    experiment: tyro.conf.Positional[str | None] = None
    """The name of an experiment, such as sinusoid-5shot-maml."""
    resume: Path | None = None
    """Instead of an experiment: the run folder to go on with, exactly where its last checkpoint left it."""
    device: str | None = None
    """With --resume: where to go on, if not where it was begun: cpu, cuda, cuda:1, mps."""
    threads: int | None = None
    """With --resume: CPU threads from now on, if not as many as before."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    if not words or words[0].startswith("-"):
        options = parse(Train, "train", words or ["--help"])
        if options.resume is None and options.experiment is not None:
            raise ValueError(f"the experiment comes first: fewstep train {options.experiment} [options].")
        if options.resume is None:
            raise ValueError("train needs an experiment (see `fewstep list`) or --resume RUN.")
        run = Run(options.resume, options.device, options.threads)
    else:
        row = find(words[0])
        # The experiment's own fields become options, with the row's values as defaults.
        parts = [("experiment", type(row.config)), ("training", Training), ("place", Place)]
        kind = make_dataclass("Options", parts)
        options = tyro.cli(
            kind,
            default=kind(row.config, Training(**row.training), Place()),
            prog=f"fewstep train {row.name}",
            description=row.summary,
            args=words[1:],
            config=(tyro.conf.OmitArgPrefixes,),
        )
        experiment, training, place = options.experiment, options.training, options.place
        folder = place.run or Path("runs") / f"{row.name}-seed{training.seed}"
        run = Run.create(row.name, experiment, training, folder)
    run.train()
    print(f"Trained {run.name} for {run.iterations():,} iterations: {run.folder.path}")
    print(f"Test it with: fewstep evaluate {run.folder.path}")
