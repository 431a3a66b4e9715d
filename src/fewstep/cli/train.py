"""``fewstep train``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from fewstep.cli.option_values import Argument
from fewstep.cli.parsing import parse
from fewstep.cli.run_folder import Hardware, open_run
from fewstep.experiments.catalogue import EXPERIMENTS, find
from fewstep.experiments.changes import Changes, change_run
from fewstep.experiments.row import Row
from fewstep.experiments.runs import Run
from fewstep.experiments.settings import settings_of
from fewstep.experiments.training import Training
from fewstep.parallel import Processes, together
from fewstep.training import RunFolder, TrainingDiverged, TrainingInterrupted


@dataclass(frozen=True)
class Train:
    """Train an experiment, or resume a run.

    `fewstep list` lists the experiments; `fewstep train EXPERIMENT --help` shows the options of one.

    Examples:
        fewstep train sinusoid-5shot-maml --iterations 5000
        fewstep train --resume runs/sinusoid-5shot-maml-seed0
        fewstep train --resume runs/sinusoid-5shot-maml-seed0 --outer-lr 1e-4 --clip-norm 10
    """

    experiment: Annotated[str | None, Argument] = None
    """The name of an experiment, such as sinusoid-5shot-maml."""
    resume: Path | None = None
    """Instead of an experiment: the folder of a run, which is resumed exactly from its last checkpoint."""
    hardware: Hardware = field(default_factory=Hardware)
    """With --resume: where to compute. By default, as before."""
    changes: Changes = field(default_factory=Changes)
    """With --resume: settings that change from here on, for instance after training diverged. The run's config.json and
    its results say so."""


@dataclass(frozen=True)
class TrainExperiment:
    """The options of one experiment, whose own are a group of them."""

    experiment: Any
    training: Training
    hardware: Hardware
    run: Path | None = None
    """The folder of the run. If not given, runs/EXPERIMENT-seedS."""
    resume_if_begun: bool = False
    """Resume the run in the folder if it was begun with the same options, as a job needs that is requeued. torchrun's
    restarts do so without this option."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it. The processes of torchrun share the training."""
    with together() as processes:
        resumes = not words or words[0].startswith("-")
        _train(_resumed(words, processes) if resumes else _new(words[0], words[1:], processes))


def _train(run: Run) -> None:
    try:
        run.train()
    except TrainingInterrupted as interrupt:
        if not run.folder.has_checkpoint():
            raise
        raise interrupt.resumed_by(f"Resume it with: fewstep train --resume {run.folder.path}") from None
    except TrainingDiverged as error:
        if not run.folder.has_checkpoint():
            raise
        raise TrainingDiverged(f"{error} Resume it with: {_milder(run)}", error.iteration) from None
    done = run.iterations()
    print(f"Trained {run.name} for {done:,} iteration{'s' * (done != 1)}: {run.folder.path}")
    print(f"Evaluate it with: fewstep evaluate {run.folder.path}")


def _milder(run: Run) -> str:
    """The command that resumes a run that diverged with other settings."""
    rate = settings_of(run.experiment).get("outer_lr")
    other = "--on-nan skip" if rate is None else f"--outer-lr {rate / 10:g} --clip-norm 10"
    return f"fewstep train --resume {run.folder.path} {other}"


def _resumed(words: list[str], processes: Processes) -> Run:
    options = parse(Train, "train", words or ["--help"])
    if options.resume is not None and options.experiment is not None:
        raise ValueError("give an experiment or --resume RUN, not both.")
    if options.experiment is not None:
        raise ValueError(f"the experiment comes first: fewstep train {options.experiment} [options].")
    if options.resume is None:
        raise ValueError("train needs an experiment (see `fewstep list`) or --resume RUN.")
    path = options.resume
    processes.of_first(lambda: change_run(open_run(path, options.hardware), options.changes))
    return open_run(path, options.hardware)


def _new(name: str, words: list[str], processes: Processes) -> Run:
    row = find(name)
    _check_apply(row, words)
    training = Training(**row.training)
    defaults = TrainExperiment(row.config, training, Hardware(training.device, training.threads))
    summary = f"{row.summary[0].upper()}{row.summary[1:].rstrip('.')}."
    options = parse(TrainExperiment, f"train {row.name}", words, defaults, summary)
    training = replace(options.training, **vars(options.hardware))
    folder = options.run or Path("runs") / f"{row.name}-seed{training.seed}"
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0

    def create() -> bool:
        if (options.resume_if_begun or restarted) and RunFolder(folder).config_file.is_file():
            _check_same(Run(folder), row.name, options.experiment, training)
            return False
        Run.create(row.name, options.experiment, training, folder)
        return True

    created = processes.of_first(create)
    run = Run(folder)
    run.is_new = created and processes.is_first
    return run


def _check_same(run: Run, name: str, experiment: Any, training: Training) -> None:
    """Checks that a run was begun with these options, unless they were changed since.

    Raises:
        FileExistsError: it was not.
    """
    mine, theirs = (
        {"experiment": of, **settings_of(config), **vars(how)}
        for of, config, how in ((name, experiment, training), (run.name, run.experiment, run.begun_with))
    )
    changed = {setting for change in run.changes for setting in change}
    others = [
        f"{key}: {theirs.get(key)!r} in the run, {value!r} now"
        for key, value in mine.items()
        if key not in changed and value != theirs.get(key)
    ]
    if others:
        raise FileExistsError(
            f"the run in {run.folder.path} was begun with other options ({'; '.join(others)}). Use another folder, "
            "or these options."
        )


def _check_apply(row: Row, words: list[str]) -> None:
    """Checks that no option belongs to other experiments only.

    Raises:
        ValueError: an option does not apply to the row.
    """
    own = settings_of(row.config)
    others = {name for other in EXPERIMENTS.values() for name in settings_of(other.config) if name not in own}
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        if option.removeprefix("--").replace("-", "_") in others:
            raise ValueError(
                f"{option} does not apply to {row.name}, whose method is {row.config.method.name}. "
                f"See fewstep train {row.name} --help."
            )
