"""What a run cost, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fewstep.report.contents import RunContents
from fewstep.training.progress import duration


def training_time(run: RunContents) -> str | None:
    """How long training took, if that is known."""
    seconds = _known(run).get("training_seconds")
    return None if seconds is None else duration(seconds)


def costs(run: RunContents) -> dict[str, str]:
    """Time, tasks and processor, as far as they are known."""
    known = _known(run)
    forms: dict[str, tuple[str, Callable[[Any], str]]] = {
        "training_seconds": ("training", duration),
        "validation_seconds": ("validation while training", duration),
        "training_tasks": ("training tasks", lambda value: f"{value:,}"),
        "seconds_per_1000_tasks": ("training, per 1,000 tasks", lambda value: f"{value:.3g} s"),
        "adaptation_seconds": ("adaptation to a test task", lambda value: f"{1000 * value:.3g} ms"),
        "trained_on": ("trained on", _names),
        "processor": ("tested on", str),
        "threads": ("CPU threads at test", str),
    }
    found = {title: form(known[key]) for key, (title, form) in forms.items() if known.get(key) is not None}
    if found.get("tested on") == found.get("trained on"):
        found.pop("tested on", None)
    return found


def _known(run: RunContents) -> Mapping[str, Any]:
    checkpoint = run.checkpoint or {}
    names = {"training_seconds": "seconds", "validation_seconds": "validation_seconds", "trained_on": "processors"}
    ours = {name: checkpoint[key] for name, key in names.items() if key in checkpoint}
    return {**(run.results or {}), **ours}


def _names(value: object) -> str:
    return ", then ".join(map(str, value)) if isinstance(value, list) else str(value)
