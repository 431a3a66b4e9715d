"""How a run is tested: by the row's protocol, or by another one, whose results have another file name."""

from __future__ import annotations

from typing import Any

from fewstep.experiments.experiment import Experiment
from fewstep.experiments.other_norms import SHARED
from fewstep.experiments.row import Row


def standard_test(experiment: Experiment, row: Row) -> dict[str, Any]:
    """The options of the test that ``results.json`` holds: the experiment's own, and what its row adds."""
    own_norm = getattr(experiment, "norm", None)
    return {
        **experiment.test_protocol(),
        "seed": 0,
        "shots": tuple(k for k in row.other_shots if k != experiment.shots),
        "norm": tuple(norm for norm in row.other_norms if norm != own_norm) if own_norm in SHARED else (),
    }


def other_options(standard: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The given options that differ from the standard test's; ``None`` and ``()`` stand for the standard's.

    Examples:
        >>> other_options({"tasks": 600, "seed": 0, "norm": ("support",)}, {"tasks": 50, "seed": 0, "norm": ()})
        {'tasks': 50}
    """
    return {name: value for name, value in given.items() if value not in (None, ()) and value != standard.get(name)}


def results_name(options: dict[str, Any]) -> str:
    """The file name of the results of a test: ``results.json`` only for the standard test.

    Args:
        options: those that differ from the standard test's.

    Examples:
        >>> results_name({}), results_name({"steps": 4, "shots": (5, 20)})
        ('results.json', 'results-steps-4-shots-5-20.json')
    """
    words = [str(word) for name, value in options.items()
             for word in (name, *(value if isinstance(value, tuple) else (value,)))]  # fmt: skip
    return "-".join(["results", *words]) + ".json"
