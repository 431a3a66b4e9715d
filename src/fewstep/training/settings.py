"""What training depends on besides the learner and its tasks, and how a resumed run differs from its checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

SPEED_ONLY = frozenset(("foreach", "fused", "capturable", "differentiable"))
"""Settings of optimisers that do not change what is computed."""


def settings_of(optimizer: torch.optim.Optimizer, scheduler: Any = None, **options: Any) -> dict[str, Any]:
    """The settings of a training by name.

    Args:
        optimizer: its class is `optimizer`, and its settings have their own names, such as `lr`: as given, not as a
            scheduler has changed it. A setting that differs between parameter groups is a list.
        scheduler: its class is `scheduler`, and its settings have names such as `scheduler.T_max`.
        **options: further settings.

    Examples:
        >>> sgd = torch.optim.SGD([torch.ones(1)], 0.5)
        >>> settings = settings_of(sgd, torch.optim.lr_scheduler.LinearLR(sgd), seed=3)
        >>> settings["seed"], settings["optimizer"], settings["lr"], settings["scheduler.start_factor"]
        (3, 'SGD', 0.5, 0.3333333333333333)
    """
    found = {**options, "optimizer": type(optimizer).__name__, **_arguments(optimizer)}
    found |= of_groups(optimizer.param_groups)
    if getattr(scheduler, "cycle_momentum", False):
        found = {name: value for name, value in found.items() if name not in ("momentum", "betas")}
    found["scheduler"] = None if scheduler is None else type(scheduler).__name__
    return found | {f"scheduler.{name}": value for name, value in _arguments(scheduler).items()}


def of_groups(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of an optimiser's parameter groups by name."""
    each = [{name: _plain(value) for name, value in group.items() if name != "params"} for group in groups]
    for group in each:
        group["lr"] = group.pop("initial_lr", group.get("lr"))
    names = dict.fromkeys(name for group in each for name in group)
    values = {name: [group.get(name) for group in each] for name in names if name not in SPEED_ONLY}
    values = {name: value for name, value in values.items() if value != [None] * len(each)}
    return {name: value[0] if value == value[:1] * len(value) else value for name, value in values.items()}


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The settings that differ, with words such as "lr: 0.001 in the run, 0.01 now".

    Settings that only one of the two has are left out: they come from another version.

    Examples:
        >>> differences({"lr": 0.001, "seed": 0}, {"lr": 0.01, "seed": 0})
        {'lr': 'lr: 0.001 in the run, 0.01 now'}
    """
    found = {
        name: f"{name}: {_shown(value)} in the run, {_shown(now[name])} now"
        for name, value in saved.items()
        if name in now and _listed(value) != _listed(now[name])
    }
    if "optimizer" in found:  # settings of another class mean something else
        found = {name: words for name, words in found.items() if name in ("optimizer", *OPTIONS, "scheduler")}
    if "scheduler" in found:
        found = {name: words for name, words in found.items() if not name.startswith("scheduler.")}
    return found


OPTIONS = ("seed", "meta_batch", "clip_value", "clip_norm")
"""The options of [`fit`][fewstep.fit] that a checkpoint holds."""


def refuse_differences(found: Mapping[str, str], override: Iterable[str], known: Iterable[str]) -> set[str]:
    """The settings that differ and are to be taken over.

    Args:
        found: the settings that differ, in words.
        override: names of settings that may differ; `"optimizer"` and `"scheduler"` include their settings.
        known: the names of all settings.

    Raises:
        ValueError: other settings differ, and are listed, or `override` has an unknown name.
    """
    allowed, known = set(override), set(known)
    unknown = sorted(allowed - known)
    if unknown:
        raise ValueError(f"fit: override= has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
    refused = [name for name in found if name not in allowed and name.partition(".")[0] not in allowed]
    if "optimizer" in allowed:
        refused = [name for name in refused if name in OPTIONS or name.startswith("scheduler")]
    if refused:
        lines = "".join(f"\n  {found[name]}" for name in refused)
        names = ", ".join(f'"{name}"' for name in refused)
        raise ValueError(
            f"fit: the run was trained with other settings:{lines}\nResume it with its own settings, or take the new "
            f"ones over with override=[{names}]."
        )
    return set(found)


def _arguments(thing: Any) -> dict[str, Any]:
    """The arguments of an object's class that it keeps as attributes, if they are plain values."""
    names = [] if thing is None else list(inspect.signature(type(thing).__init__).parameters)[1:]
    kept = {name: getattr(thing, name, getattr(thing, f"_{name}", None)) for name in names if name != "last_epoch"}
    plain = {name: _plain(value) for name, value in kept.items()}
    return {name: value for name, value in plain.items() if value is not None and name != "verbose"}


def _plain(value: Any) -> Any:
    """Numbers, strings, and sequences and dictionaries of them; `None` for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, Mapping):
        value = [item for pair in sorted(value.items()) for item in pair]
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return None if not items or None in items else items
    return value if isinstance(value, (bool, int, float, str)) else None


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
