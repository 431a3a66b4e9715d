"""Reading of ``config.json``: every name and value is checked before it is used."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fewstep.experiments.catalogue import EXPERIMENTS, find
from fewstep.experiments.option_types import check_options
from fewstep.experiments.settings import load_settings
from fewstep.experiments.training import Training
from fewstep.training import RunFolder

_FIX = "Correct or restore the file, or train the experiment again."


def read_config(folder: RunFolder) -> tuple[str, Training, Any]:
    """The name of a run's experiment, how it is trained, and its settings.

    Raises:
        ValueError: the file is damaged, or holds a name, an option or a value that this version does not know.
    """
    file = folder.config_file
    config = folder.read_json(file)
    for key, kind, what in (("experiment", str, "a text"), ("training", dict, "options"), ("config", dict, "settings")):
        if not isinstance(config.get(key), kind):
            found = config.get(key)
            raise ValueError(f"{file} is damaged: expected {what} under {key!r}; got {found!r}. {_FIX}")
    name = str(config["experiment"])
    if name not in EXPERIMENTS:
        raise ValueError(
            f"{file} is of the experiment {name!r}, which this version of fewstep does not have. Use the version "
            f"{config.get('fewstep', 'that made it')}; `fewstep list` shows the experiments of this one."
        )
    try:
        unknown = config["training"].keys() - {field.name for field in fields(Training)}
        if unknown:
            raise ValueError(f"there is no training option {', '.join(sorted(unknown))}.")
        training = Training(**config["training"])
        check_options(training)
        experiment = load_settings(find(name).config, config["config"], [row.config for row in EXPERIMENTS.values()])
        check_options(experiment)
    except ValueError as error:
        raise ValueError(f"{file}: {error} {_FIX}") from error
    return name, training, experiment


def read_changes(folder: RunFolder) -> list[dict[str, Any]]:
    """The settings that were changed on resuming, as ``config.json`` lists them.

    Raises:
        ValueError: the file is damaged.
    """
    found = folder.read_json(folder.config_file).get("changes", [])
    if not isinstance(found, list) or not all(isinstance(change, dict) for change in found):
        raise ValueError(f"{folder.config_file} is damaged: expected a list of objects under 'changes'. {_FIX}")
    return found
