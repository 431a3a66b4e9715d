"""The methods of few-shot classification: a file has a method's options, learner, papers' numbers and rows."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from fewstep.experiments.row import Row

_LISTED = (
    "maml", "anil", "meta_sgd", "maml_plus_plus", "reptile", "imaml", "cavia", "meta_lstm", "prototypical", "matching",
    "relation", "siamese", "mann", "classifiers",
)  # fmt: skip
"""The order of `fewstep list` and of the tables. Other files of this folder follow, by name."""


def rows() -> list[Row]:
    """The rows of all files in this folder, in the order in which they are listed."""
    files = sorted(file.name for file in pkgutil.iter_modules(__path__))
    files.sort(key=lambda name: _LISTED.index(name) if name in _LISTED else len(_LISTED))
    every = [row for name in files for row in import_module(f"{__name__}.{name}").ROWS]
    return sorted(every, key=lambda row: row.section)
