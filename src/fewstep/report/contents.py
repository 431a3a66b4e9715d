"""What a report says about a run, gathered from its folder."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.curves import load_curves
from fewstep.experiments.result_files import read_json
from fewstep.experiments.results import load_results
from fewstep.files import printable
from fewstep.training.run_folder import RunFolder


@dataclass(frozen=True)
class RunContents:
    """A run as a report shows it; everything but the name may be missing.

    Args:
        name: of the run, usually that of its folder.
        path: the run folder; ``None`` for committed results without one.
        experiment: the experiment's name; ``None`` for a run of [`fit`][fewstep.fit] without one.
        settings: group → option → value.
        metrics: the lines of ``metrics.jsonl`` that can be used.
        results: the contents of ``results.json``.
        checkpoint: the newest checkpoint without its tensors.
        best_checkpoint: whether there is a best checkpoint.
        notes: what is missing or wrong, a sentence each.
    """

    name: str
    path: Path | None = None
    experiment: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    results: Mapping[str, Any] | None = None
    checkpoint: Mapping[str, Any] | None = None
    best_checkpoint: bool = False
    notes: Sequence[str] = ()

    @property
    def row(self) -> Any:
        """The experiment's row with the paper's numbers; ``None`` if there is no such experiment."""
        return EXPERIMENTS.get(self.experiment or "")

    @property
    def metric(self) -> str | None:
        """The name of the metric, if it is known."""
        if self.results is not None:
            return printable(str(self.results["metric"]))
        if self.row is not None:
            return str(self.row.config.metric.__name__)
        recorded = self.settings.get("fit", {}).get("metric")
        return printable(recorded) if isinstance(recorded, str) else None

    @property
    def paper(self) -> dict[int, float]:
        """The paper's numbers by number of inner steps."""
        return {} if self.row is None else dict(self.row.paper)

    @property
    def iterations(self) -> int:
        """Outer iterations done."""
        known = [int(row["iteration"]) for row in self.metrics]
        for source in (self.checkpoint, None if self.results is None else {"iteration": self.results["iterations"]}):
            if source is not None:
                known.append(int(source["iteration"]))
        return max(known, default=0)

    @property
    def planned(self) -> int | None:
        """Outer iterations that the run was begun with, if they are known."""
        value = {**self.settings.get("fit", {}), **self.settings.get("experiment", {})}.get("iterations")
        return value if isinstance(value, int) else None

    @property
    def finished(self) -> bool:
        """Whether all iterations are done, as far as that is known."""
        return self.planned is not None and self.iterations >= self.planned

    @property
    def validations(self) -> list[Mapping[str, Any]]:
        """The lines of metrics that hold a validation."""
        return [row for row in self.metrics if "validation" in row]


def read_run(path: str | os.PathLike[str]) -> RunContents:
    """Gathers what a run folder holds, whether it is of an experiment or of [`fit`][fewstep.fit], finished or not.

    Raises:
        FileNotFoundError: there is no such folder, or nothing of a run in it.
    """
    folder = RunFolder(path)
    if not folder.path.is_dir():
        raise FileNotFoundError(f"There is no run folder {folder.path}.")
    which = next(iter(folder.checkpoints()), None)
    files = (folder.config_file, folder.metrics_file, folder.results_file)
    if which is None and not any(file.is_file() for file in files):
        raise FileNotFoundError(
            f"{folder.path} is not a run folder: it has no config.json, no metrics.jsonl and no checkpoint. "
            "`fewstep train EXPERIMENT` makes one, and so does fewstep.fit(..., run=FOLDER)."
        )
    notes: list[str] = []
    config = _json(folder.config_file, notes) or {"fit": _json(folder.settings_file, notes)}
    with warnings.catch_warnings(record=True) as damage:  # lines that are left out
        warnings.simplefilter("always")
        metrics = folder.metrics()
    notes += [str(one.message) for one in damage]
    results = _usable(_json(folder.results_file, notes), notes)
    checkpoint: dict[str, Any] | None = None
    if which is not None:
        try:
            state = folder.load(which)
            checkpoint = {key: value for key, value in state.items() if key in _OF_CHECKPOINT}
        except ValueError as error:
            notes.append(str(error))
    with warnings.catch_warnings(record=True) as damaged:
        warnings.simplefilter("always")
        metrics = folder.metrics()
    notes.extend(str(warning.message) for warning in damaged)
    found = RunContents(
        folder.path.resolve().name,
        folder.path,
        str(config["experiment"]) if "experiment" in config else None,
        _settings(config),
        _numbers(metrics, notes),
        results,
        checkpoint,
        "best" in folder.checkpoints(),
    )
    return RunContents(**{**vars(found), "notes": (*notes, *_missing(found))})


_OF_CHECKPOINT = ("iteration", "seconds", "validation_seconds", "processors", "best")


def read_table(folder: str | os.PathLike[str], table: str) -> list[RunContents]:
    """Gathers the results of a table as `fewstep reproduce` writes them: one file for each run, and its curve."""
    folder = Path(folder)
    found = []
    for name, result in load_results(folder, table).items():
        curves = load_curves(folder, name)
        for run in result.runs:
            notes: list[str] = []
            results, metrics = _usable(run, notes), _numbers(curves.get(run["seed"], []), notes)
            title = f"{name}-seed{run['seed']}"
            found.append(
                RunContents(
                    title, None, name, _settings(run), metrics, results, None, False, (*notes, *_unseen(metrics))
                )
            )
    return found


def _json(file: Path, notes: list[str]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return read_json(file)
    except ValueError as error:
        notes.append(str(error))
        return {}


def _settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    groups = {"experiment": config.get("config"), "training": config.get("training"), "fit": config.get("fit")}
    software = {name: config[name] for name in ("fewstep", "torch", "commit") if config.get(name) is not None}
    return {
        title: dict(_flat(values))
        for title, values in {**groups, "software": software}.items()
        if isinstance(values, Mapping) and values
    }


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Options with those of nested groups, as ``method.inner_lr``."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else [(f"{before}{name}", value)]
    return found


def _numbers(rows: Sequence[Any], notes: list[str]) -> list[dict[str, Any]]:
    """The lines with an iteration, their numbers only, each validation with an interval."""
    kept = []
    for row in rows:
        if isinstance(row, Mapping) and _is_number(row.get("iteration")) and math.isfinite(row["iteration"]):
            numbers = {str(name): value for name, value in row.items() if _is_number(value)}
            kept.append(numbers | ({"validation_ci95": math.nan} | numbers if "validation" in numbers else {}))
    for name in ("loss", "validation"):
        bad = next((row for row in kept if name in row and not math.isfinite(row[name])), None)
        if bad is not None:
            words = {"loss": "The meta-loss", "validation": "The validation metric"}[name]
            notes.append(f"{words} is {bad[name]} at iteration {bad['iteration']:,}; it is a gap in the curve.")
    return kept


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _usable(results: dict[str, Any], notes: list[str]) -> dict[str, Any] | None:
    if not results:
        return None
    mean, ci95 = results.get("mean"), results.get("ci95")
    complete = (
        isinstance(mean, list)
        and isinstance(ci95, list)
        and len(mean) == len(ci95) > 0
        and all(map(_is_number, [*mean, *ci95]))
        and {"metric", "iterations", "tasks"} <= results.keys()
    )
    if not complete:
        notes.append("results.json is incomplete; test the run again with `fewstep evaluate`.")
        return None
    if not all(map(math.isfinite, results["mean"])):
        notes.append("The test metric is not finite after some numbers of inner steps.")
    return results


def _missing(run: RunContents) -> list[str]:
    notes = []
    if run.experiment is None:
        notes.append("Written by fewstep.fit: the model and the tasks are in the program that called it.")
    elif run.row is None:
        notes.append(
            f"This version of fewstep has no experiment {run.experiment!r}, so the paper's numbers are missing."
        )
    if run.checkpoint is None:
        notes.append("No checkpoint has been saved yet.")
    if run.results is None and run.experiment is not None:
        notes.append("Not tested yet: fewstep evaluate writes the results after every inner step.")
    return [*notes, *_unseen(run.metrics)]


def _unseen(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    if not metrics:
        return ["No metrics have been logged, so there is no learning curve."]
    return [] if any("validation" in row for row in metrics) else ["There was no validation."]
