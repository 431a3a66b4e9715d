"""The settings of an experiment as one flat dictionary, as they stand in ``config.json``, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, TypeVar

from fewstep.experiments.experiment import Experiment, Part

AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """The settings of an experiment and of its parts; a part itself is there as its name.

    Examples:
        >>> from fewstep.experiments.catalogue import find
        >>> settings = settings_of(find("sinusoid-5shot-maml").config)
        >>> settings["method"], settings["inner_lr"], settings["shots"]
        ('maml', 0.005, 5)
    """
    settings: dict[str, Any] = {}
    for name, value in _values(experiment).items():
        settings |= {name: value.name, **_values(value)} if isinstance(value, Part) else {name: value}
    return settings


def with_settings(experiment: AnyExperiment, **settings: Any) -> AnyExperiment:
    """The experiment with other settings, its own or those of its parts.

    Raises:
        TypeError: it has no such setting.

    Examples:
        >>> from fewstep.experiments.catalogue import find
        >>> changed = with_settings(find("sinusoid-5shot-maml").config, inner_lr=0.1, meta_batch=4)
        >>> changed.method.inner_lr, changed.meta_batch
        (0.1, 4)
    """
    left = dict(settings)
    parts = {name: part for name, part in _values(experiment).items() if isinstance(part, Part)}
    changed = {name: replace(part, **_taken(left, part)) for name, part in parts.items()}  # type: ignore[type-var]
    result = replace(experiment, **{**changed, **_taken(left, experiment)})  # type: ignore[type-var]
    if left:
        names = ", ".join(part.name for part in parts.values())
        raise TypeError(f"{type(experiment).__name__} ({names}) has no setting {', '.join(left)}.")
    return result


def load_settings(like: AnyExperiment, saved: dict[str, Any], every: Iterable[Experiment]) -> AnyExperiment:
    """The experiment that a ``config.json`` describes.

    Files that were written before methods had options of their own hold the options of all methods. Those that the
    run's method does not have are dropped.

    Args:
        like: an experiment of the same kind.
        saved: its flat settings. Settings that are missing have their default.
        every: experiments whose parts may occur, as a run may have another method than ``like``.

    Raises:
        ValueError: a setting or the name of a part is unknown.
    """
    left, parts = dict(saved), {}
    for name, part in _values(like).items():
        if isinstance(part, Part):
            chosen = left.pop(name, part.name)
            alike = [like, *(one for one in every if type(one) is type(like))]
            kinds = {one.name: type(one) for one in (getattr(of, name) for of in reversed(alike))}
            if chosen not in kinds:
                raise ValueError(f"{type(like).__name__} has no {name} {chosen!r} any more; it has {', '.join(kinds)}.")
            parts[name] = kinds[chosen](**_taken(left, kinds[chosen]))
    experiment = type(like)(**parts, **_taken(left, like))
    unknown = left.keys() - type(like).former_options
    if unknown:
        names = ", ".join(part.name for part in parts.values())
        raise ValueError(f"{type(like).__name__} ({names}) has no setting {', '.join(sorted(unknown))}.")
    return experiment


def _values(experiment: Any) -> dict[str, Any]:
    return {field.name: getattr(experiment, field.name) for field in fields(experiment)}


def _taken(settings: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Removes from the settings those that a data class has, and returns them."""
    return {field.name: settings.pop(field.name) for field in fields(kind) if field.name in settings}
