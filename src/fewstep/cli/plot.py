"""``fewstep plot``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fewstep.cli.option_values import Argument
from fewstep.cli.parsing import parse
from fewstep.cli.run_folder import Hardware


@dataclass(frozen=True)
class Plot:
    """Draw the figures of a run into its folder.

    These are the learning curve; the metric after each inner step, if the run was evaluated; and the figures of its
    experiment. Of a run of `fewstep.fit` it draws the learning curve.

    Example:
        fewstep plot runs/sinusoid-5shot-maml-seed0
    """

    run: Annotated[Path, Argument]
    """The run folder."""
    hardware: Hardware = field(default_factory=Hardware)
    """Where to compute. By default, as in training."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    plot(parse(Plot, "plot", words))


def plot(options: Plot) -> None:
    """Draws the figures and prints the names of their files."""
    from fewstep.experiments.runs import Run
    from fewstep.training import RunFolder

    folder = RunFolder(options.run)
    if folder.has_run() and not folder.config_file.is_file():
        print(f"Wrote {_learning_curve(folder)}")
        return
    run = Run(options.run, options.hardware.device, options.hardware.threads)
    for file in run.plot():
        print(f"Wrote {file}")
    if not run.folder.results_file.is_file():
        print(f"For the metric after each inner step: fewstep evaluate {run.folder.path}, then plot again.")


def _learning_curve(folder: Any) -> Path:
    from fewstep.figures.learning_curves import plot_learning_curve

    rows = folder.metrics()
    if not rows:
        raise ValueError(f"{folder.path} has no metrics yet. Training writes them every log_every iterations.")
    metric = str(folder.settings().get("metric", "loss"))
    return plot_learning_curve({folder.path.name: rows}, folder.path / "learning-curve.png", metric)
