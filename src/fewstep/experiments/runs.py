"""Training, testing and plotting a named experiment in a run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewstep.experiments.catalogue import find
from fewstep.experiments.changes import overridden
from fewstep.experiments.config import read_changes, read_config
from fewstep.experiments.experiment import Experiment
from fewstep.experiments.option_types import check_options
from fewstep.experiments.other_norms import OtherNorm, take_parameters
from fewstep.experiments.provenance import provenance
from fewstep.experiments.result_files import read_results
from fewstep.experiments.tested import evaluate_run
from fewstep.experiments.training import Training
from fewstep.training import RunFolder, fit


class Run:
    """A run folder with the experiment that it holds.

    Args:
        path: an existing run folder, made by :meth:`create`.
        device: where to go on with it or test it; where it was begun if not given.
        threads: CPU threads, likewise.
    """

    def __init__(self, path: str | Path, device: str | None = None, threads: int | None = None) -> None:
        self.folder = RunFolder(path)
        if not self.folder.config_file.is_file():
            raise FileNotFoundError(
                f"{self.folder.path} is not a run folder: it has no config.json. Make one with `fewstep train "
                "EXPERIMENT`."
            )
        self.name: str
        self.experiment: Any
        self.name, self.begun_with, self.experiment = read_config(self.folder)
        here: dict[str, Any] = {"device": device, "threads": threads}
        self.training = replace(self.begun_with, **{name: value for name, value in here.items() if value is not None})
        self.changes: list[dict[str, Any]] = read_changes(self.folder)
        """Settings that were changed on resuming: the iteration, and by name the value before and after."""
        self.is_new = False
        """Whether `create` made the folder, so that it is removed if training fails before anything is saved."""

    @classmethod
    def create(cls, name: str, experiment: Any, training: Training, path: str | Path) -> Run:
        """Makes a run folder, unless the training cannot be carried out.

        Raises:
            FileExistsError: the folder holds a run.
            FileNotFoundError: the data are missing.
            ValueError: an option is wrong or has no effect, or options, data and device do not fit together.
        """
        training.check()
        check_options(experiment)
        _check_effects(name, experiment, training)
        folder = RunFolder(path)
        _check_is_free(folder)
        # Settings that do not fit the data are found by making these, before the folder is made.
        experiment.learner(compile=False)
        experiment.train_source()
        experiment.validation_source()
        with folder.writing():
            _check_is_free(folder)
            folder.write_json(folder.config_file, {"experiment": name, **provenance(experiment, training)})
        run = cls(path)
        run.is_new = True
        return run

    def train(
        self, progress: bool = True, until: int | None = None, deadline: float | None = None
    ) -> list[dict[str, Any]]:
        """Trains from the last checkpoint to the end.

        A new folder is removed if training fails before anything is saved.

        Args:
            progress: show progress.
            until: stop after this number of iterations in all.
            deadline: as in [`fit`][fewstep.fit].
        """
        try:
            return self._fit(progress, until, deadline)
        except BaseException:
            if self.is_new:
                self.folder.remove_if_unused()
            raise

    def _fit(self, progress: bool, until: int | None, deadline: float | None) -> list[dict[str, Any]]:
        training, experiment = self.training, self.experiment
        learner = self._fresh_learner(training.compiles(experiment.iterations))
        optimizer = experiment.outer_optimizer(learner)
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        if training.schedule == "cosine":
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, experiment.iterations, eta_min=optimizer.param_groups[0]["lr"] / 100
            )
        elif training.schedule == "linear":
            scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, experiment.iterations)
        return fit(
            learner,
            training.placed(experiment.train_source()),
            optimizer,
            iterations=experiment.iterations if until is None else min(until, experiment.iterations),
            meta_batch=experiment.meta_batch,
            seed=training.seed,
            scheduler=scheduler,
            clip_value=training.clip_value,
            clip_norm=training.clip_norm,
            validation=training.placed(experiment.validation_source()),
            validate_every=training.validate_every,
            num_validation_tasks=training.validation_tasks,
            validation_steps=experiment.test_steps,
            metric=experiment.metric,
            run=self.folder.path,
            resume=True,
            override=overridden(self.changes),
            on_nan=training.on_nan,
            deadline=deadline,
            log_every=training.log_every,
            checkpoint_every=training.checkpoint_every,
            progress=progress,
            title=self.name,
        )

    def load_learner(self, checkpoint: str | None = None, norm: OtherNorm | None = None) -> Any:
        """The learner of a checkpoint, ``"last"`` or ``"best"`` in validation; the one to be tested if not given.

        With ``norm`` the same weights under another normalisation policy.
        """
        return self.learner_of(self.checkpoint(checkpoint)[1], norm)

    def iterations(self) -> int:
        """Outer iterations that the newest checkpoint has seen."""
        return max((self.folder.load(which)["iteration"] for which in self.folder.checkpoints()), default=0)

    def checkpoint(self, which: str | None = None) -> tuple[str, dict[str, Any]]:
        """A checkpoint and whether it is the last or the best; while there is no best one yet, the last.

        Args:
            which: ``"last"`` or ``"best"``; the experiment's own choice if not given.

        Raises:
            FileNotFoundError: there is none yet.
        """
        wanted = which or self.experiment.test_checkpoint
        choices = [wanted] if which else [wanted, "last", "best"]
        found = next((choice for choice in choices if choice in self.folder.checkpoints()), None)
        if found is None:
            training = self.training
            raise FileNotFoundError(
                f"{self.folder.path} has no {which + ' ' if which else ''}checkpoint yet: training saves the last "
                f"every {training.checkpoint_every:,} iterations, and the best when it validates, every "
                f"{training.validate_every:,}. Wait for one, or resume: fewstep train --resume {self.folder.path}"
            )
        return found, self.folder.load(found)

    def evaluate(
        self,
        tasks: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        checkpoint: str | None = None,
        shots: tuple[int, ...] = (),
        queries: int | None = None,
        norms: tuple[OtherNorm, ...] = (),
        episodes: int | None = None,
        goals: str | None = None,
    ) -> dict[str, Any]:
        """Tests the learner, and writes the results into the run folder. The run may still be training meanwhile.

        Options that are not given are those of the experiment and its row; the results of that standard test are
        ``results.json``. Where an option differs, the file name says so, as in ``results-tasks-50-steps-4.json``.

        Args:
            tasks: number of test tasks.
            steps: inner steps.
            seed: seed of the test tasks.
            checkpoint: ``"last"`` or ``"best"``.
            shots: numbers of support examples to test with in addition, under ``other_shots`` of the results.
            queries: query examples (of a class).
            norms: normalisation policies to test under in addition, under ``other_norms`` of the results.
            episodes: in reinforcement learning, episodes for each update.
            goals: in 2D navigation, ``"drawn"`` or ``"paper"``.

        Returns:
            What the file holds, and the ``file``.
        """
        given = {"tasks": tasks, "steps": steps, "seed": seed, "checkpoint": checkpoint, "queries": queries,
                 "shots": shots, "norm": norms, "episodes": episodes, "goals": goals}  # fmt: skip
        return evaluate_run(self, given)

    def plot(self) -> list[Path]:
        """Draws the learning curve, the results over inner steps if it was tested, and the experiment's own figures."""
        from fewstep.figures.inner_steps import plot_over_steps
        from fewstep.figures.learning_curves import plot_learning_curve

        files, folder = [], self.folder.path
        metric, paper = self.experiment.metric.__name__, find(self.name).paper
        rows = self.folder.metrics()
        if rows:
            final = paper.get(self.experiment.test_steps)
            files.append(plot_learning_curve({self.name: rows}, folder / "learning-curve.png", metric, final))
        if self.folder.results_file.is_file():
            results = read_results(self.folder.results_file)
            others = {f"under {norm} norms": found for norm, found in results.get("other_norms", {}).items()}
            curves = {f"under {results['config']['norm']} norms" if others else "ours": results, **others}
            if results["steps"] > 0:
                files.append(plot_over_steps({self.name: curves}, folder / "steps.png", metric, paper))
        return [*files, *self.experiment.plot(self)]

    def learner_of(self, state: dict[str, Any], norm: OtherNorm | None = None) -> Any:
        """The learner of a checkpoint's state; with ``norm`` under another normalisation policy."""
        if norm is None:
            learner = self._fresh_learner(compile=False)
            learner.load_state_dict(state["learner"])
            return learner
        learner = self._fresh_learner(compile=False, experiment=self.experiment.under_norm(norm))
        take_parameters(learner, state["learner"])
        return learner

    def _fresh_learner(self, compile: bool | str, experiment: Any = None) -> Any:
        training = self.training
        training.check()
        if training.threads:
            torch.set_num_threads(training.threads)
        convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        convolutions.fp32_precision = "tf32" if training.precision == "tf32" else "ieee"
        torch.manual_seed(training.seed)
        return (experiment or self.experiment).learner(compile).to(training.device, getattr(torch, training.dtype))


def _check_is_free(folder: RunFolder) -> None:
    if folder.config_file.exists():
        raise FileExistsError(
            f"{folder.path} already holds a run. Resume it with fewstep train --resume {folder.path}, or name "
            "another folder with --run."
        )
    if folder.has_run():
        raise FileExistsError(f"{folder.path} holds a run of fewstep.fit. Name another folder with --run.")


def _check_effects(name: str, experiment: Experiment, training: Training) -> None:
    """Checks that no option was given that has no effect.

    Raises:
        ValueError: one differs from the row's and does not apply.
    """
    row = find(name)
    for option, reason in experiment.unused_options().items():
        if getattr(experiment, option) != getattr(row.config, option):
            raise ValueError(f"--{option.replace('_', '-')} does not apply: {reason}.")
    if training.compile and not training.on_gpu and not experiment.method.compiles:
        raise ValueError(
            f"--compile does not apply: the learner of the method {experiment.method.name!r} is not compiled; "
            "give --no-compile."
        )
