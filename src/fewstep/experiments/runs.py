"""Training, testing and plotting a named experiment in a run folder."""

from __future__ import annotations

import dataclasses
import difflib
import json
import subprocess
from pathlib import Path
from typing import Any

import torch

import fewstep
from fewstep.evaluation import Evaluation, evaluate
from fewstep.experiments.costs import costs
from fewstep.experiments.experiment import Row, Training
from fewstep.experiments.few_shot_rows import ROWS as FEW_SHOT_ROWS
from fewstep.experiments.sinusoid import ROWS as SINUSOID_ROWS
from fewstep.training import RunFolder, fit

EXPERIMENTS: dict[str, Row] = {row.name: row for row in (*SINUSOID_ROWS, *FEW_SHOT_ROWS)}
"""Every experiment by name."""


def find(name: str) -> Row:
    """The experiment of that name.

    Raises:
        KeyError: there is none; the message suggests the nearest.
    """
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    near = difflib.get_close_matches(name, EXPERIMENTS, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else "See `fewstep list`."
    raise KeyError(f"There is no experiment {name!r}. {hint}")


class Run:
    """A run folder with the experiment that it holds.

    Args:
        path: an existing run folder, made by :meth:`create`.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        if not self.folder.config_file.is_file():
            raise FileNotFoundError(
                f"{self.folder.path} is no run folder: it has no config.json. Make one with `fewstep train EXPERIMENT`."
            )
        config = json.loads(self.folder.config_file.read_text())
        self.name: str = config["experiment"]
        self.training = Training(**config["training"])
        self.experiment: Any = type(find(self.name).config)(**config["config"])

    @classmethod
    def create(cls, name: str, experiment: Any, training: Training, path: str | Path) -> Run:
        """A new run folder.

        Raises:
            FileExistsError: there is a run already.
        """
        folder = RunFolder(path)
        if folder.config_file.exists():
            raise FileExistsError(
                f"{folder.path} already holds a run. Go on with it: fewstep train --resume {folder.path}; "
                "or name another folder with --run."
            )
        content = {
            "experiment": name,
            "config": dataclasses.asdict(experiment),
            "training": dataclasses.asdict(training),
            "fewstep": fewstep.__version__,
            "torch": torch.__version__,
            "commit": git_commit(),
        }
        folder.write_json(folder.config_file, content)
        return cls(path)

    def train(self, progress: bool = True, until: int | None = None) -> list[dict[str, Any]]:
        """Trains from where the folder stands to the end, or until so many iterations are done in all."""
        training, experiment = self.training, self.experiment
        learner = self._fresh_learner(training.compile)
        optimizer = experiment.outer_optimizer(learner)
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        if training.schedule == "cosine":
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, experiment.iterations, eta_min=experiment.outer_lr / 100
            )
        elif training.schedule == "linear":
            scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, experiment.iterations)
        elif training.schedule != "constant":
            raise ValueError(f"schedule must be constant, linear or cosine; got {training.schedule!r}.")
        return fit(
            learner,
            experiment.train_tasks(),
            optimizer,
            iterations=experiment.iterations if until is None else min(until, experiment.iterations),
            meta_batch=experiment.meta_batch,
            seed=training.seed,
            scheduler=scheduler,
            clip_value=training.clip_value,
            clip_norm=training.clip_norm,
            validation=experiment.validation_tasks(),
            validate_every=training.validate_every,
            validation_tasks=training.validation_tasks,
            validation_steps=experiment.test_steps,
            metric=experiment.metric,
            run=self.folder.path,
            resume=True,
            log_every=training.log_every,
            checkpoint_every=training.checkpoint_every,
            progress=progress,
            title=self.name,
        )

    def load_learner(self, checkpoint: str | None = None) -> Any:
        """The learner of a checkpoint, ``"last"`` or ``"best"`` in validation; the one to be tested if not given."""
        learner = self._fresh_learner(compile=False)
        learner.load_state_dict(self.folder.load(checkpoint or self.experiment.test_checkpoint)["learner"])
        return learner

    def iterations(self, checkpoint: str = "last") -> int:
        """Outer iterations that a checkpoint has seen."""
        done: int = self.folder.load(checkpoint)["iteration"]
        return done

    def evaluate(
        self,
        tasks: int = 600,
        steps: int | None = None,
        seed: int = 0,
        checkpoint: str | None = None,
        shots: tuple[int, ...] = (),
    ) -> dict[str, Any]:
        """Tests the learner and writes ``results.json``; other numbers of ``shots`` go under ``other_shots``."""
        checkpoint = checkpoint or self.experiment.test_checkpoint
        learner = self.load_learner(checkpoint)
        steps = self.experiment.test_steps if steps is None else steps

        def test(shots: int | None = None) -> Evaluation:
            return evaluate(learner, self.experiment.test_tasks(shots), tasks, steps, self.experiment.metric, seed)

        own = test()
        results = {
            "experiment": self.name,
            "metric": own.metric,
            "tasks": own.tasks,
            "steps": own.steps,
            "mean": own.mean,
            "ci95": own.ci95,
            "seed": self.training.seed,
            "iterations": self.iterations(),
            "checkpoint": checkpoint,
            "checkpoint_iteration": self.iterations(checkpoint),
            "test_seed": seed,
            **costs(self.experiment, self.training, self.folder.load(), learner, steps, tasks),
            "config": dataclasses.asdict(self.experiment),
            "training": dataclasses.asdict(self.training),
            "fewstep": fewstep.__version__,
            "torch": torch.__version__,
            "commit": git_commit(),
        }
        if shots:
            found = {str(k): test(k) for k in shots}
            results["other_shots"] = {k: {"mean": e.mean, "ci95": e.ci95} for k, e in found.items()}
        self.folder.write_json(self.folder.results_file, results)
        return results

    def plot(self) -> list[Path]:
        """Draws the learning curve and the experiment's own figures."""
        from fewstep.evaluation.figures import plot_learning_curve

        curve = plot_learning_curve({self.name: self.folder.metrics()}, self.folder.path / "learning-curve.png")
        return [curve, *self.experiment.plot(self)]

    def _fresh_learner(self, compile: bool) -> Any:
        training = self.training
        if training.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64; got {training.dtype!r}.")
        if training.threads:
            torch.set_num_threads(training.threads)
        torch.manual_seed(training.seed)
        return self.experiment.learner(compile).to(training.device, getattr(torch, training.dtype))


def git_commit() -> str | None:
    """The commit of the library's source where it runs from a checkout; ends in ``-dirty`` with changes in it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
