"""``fewstep demo``."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from fewstep.cli.parsing import parse
from fewstep.cli.tables import print_table
from fewstep.experiments.option_types import Count

EXPERIMENTS = {"MAML": "sinusoid-10shot-maml", "pretrained": "sinusoid-10shot-pretrained"}


@dataclass(frozen=True)
class Demo:
    """Meta-learn sine waves with MAML beside a pretrained network, print a table and draw the paper's Figure 2."""

    iterations: Count = 20_000
    """Outer iterations of each of the two; the paper trains for 70,000."""
    run: Path = Path("runs/demo")
    """The folder for the results. An earlier demo in it is replaced."""
    compile: bool = True
    """Compile the meta-step, which needs a C++ compiler."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    demo(parse(Demo, "demo", words))


def demo(options: Demo) -> None:
    """Trains and evaluates both, and prints the table and the names of the files.

    Raises:
        FileExistsError: the folder holds files that are not of a demo.
    """
    from fewstep.experiments.catalogue import find
    from fewstep.experiments.runs import Run
    from fewstep.experiments.training import Training
    from fewstep.figures.learning_curves import plot_learning_curve
    from fewstep.figures.sinusoids import plot_fits
    from fewstep.training import TrainingInterrupted

    if options.run.exists():
        if any(options.run.iterdir()) and not (options.run / "maml").exists():
            raise FileExistsError(f"{options.run} holds other files than those of a demo. Name another folder: --run.")
        shutil.rmtree(options.run)
    runs, table = {}, []
    for title, name in EXPERIMENTS.items():
        config = replace(find(name).config, iterations=options.iterations)
        runs[title] = Run.create(name, config, Training(compile=options.compile), options.run / title.lower())
        try:
            runs[title].train()
        except TrainingInterrupted as interrupt:
            raise interrupt.resumed_by("`fewstep demo` starts again from the beginning.") from None
        found = runs[title].evaluate()
        table.append([title, *(f"{found['mean'][k]:.3f} ± {found['ci95'][k]:.3f}" for k in (0, 1, 5, 10))])
    header = ["", "before", "1 step", "5 steps", "10 steps"]
    print_table("Mean squared error on new sine waves from 10 points, 600 tasks, ± 95% CI", header, table)
    learners = {title: run.load_learner() for title, run in runs.items()}
    metrics = {title: run.folder.metrics() for title, run in runs.items()}
    files = [
        plot_fits(learners, options.run / "figure-2.png"),
        plot_learning_curve(metrics, options.run / "learning-curve.png", "mse"),
        *(run.folder.results_file for run in runs.values()),
    ]
    for file in files:
        print(f"Wrote {file}")
