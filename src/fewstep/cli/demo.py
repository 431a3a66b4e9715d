"""``fewstep demo``."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from fewstep.cli.parsing import parse
from fewstep.cli.tables import print_table
from fewstep.experiments.experiment import Training
from fewstep.experiments.runs import Run, find


@dataclass(frozen=True)
class Demo:
    """Meta-learn sine waves with MAML beside a pretrained network, print a table and draw the paper's Figure 2."""

    iterations: int = 20_000
    """Outer iterations of each of the two (the paper trains 70,000)."""
    run: Path = Path("runs/demo")
    """The folder for what it makes; one that is there already is made anew."""
    compile: bool = True
    """Compile the meta-step."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    demo(parse(Demo, "demo", words))


def demo(options: Demo) -> None:
    """``fewstep demo``"""
    from fewstep.figures.learning_curves import plot_learning_curve
    from fewstep.figures.sinusoids import plot_fits

    if options.run.exists():
        if any(options.run.iterdir()) and not (options.run / "maml").exists():
            raise FileExistsError(f"{options.run} holds something else than a demo; name another folder with --run.")
        shutil.rmtree(options.run)
    runs, table = {}, []
    for title, name in {"MAML": "sinusoid-10shot-maml", "pretrained": "sinusoid-10shot-pretrained"}.items():
        config = replace(find(name).config, iterations=options.iterations)
        runs[title] = Run.create(name, config, Training(compile=options.compile), options.run / title.lower())
        runs[title].train()
        found = runs[title].evaluate()
        table.append([title, *(f"{found['mean'][k]:.3f} ± {found['ci95'][k]:.3f}" for k in (0, 1, 5, 10))])
    header = ["", "before", "1 step", "5 steps", "10 steps"]
    print_table("Mean squared error on new sine waves from 10 points, 600 tasks, ± 95% CI", header, table)
    learners = {title: run.load_learner() for title, run in runs.items()}
    files = [
        plot_fits(learners, options.run / "figure-2.png"),
        plot_learning_curve(
            {title: run.folder.metrics() for title, run in runs.items()}, options.run / "learning-curve.png", "mse"
        ),
        *(run.folder.results_file for run in runs.values()),
    ]
    for file in files:
        print(f"Wrote {file}")
