"""Every experiment by name."""

from __future__ import annotations

import difflib

from fewstep.experiments.few_shot import methods as few_shot
from fewstep.experiments.reinforcement import rows as reinforcement
from fewstep.experiments.row import Row
from fewstep.experiments.sinusoid import methods as sinusoid

EXPERIMENTS: dict[str, Row] = {row.name: row for row in (*sinusoid.ROWS, *few_shot.rows(), *reinforcement.ROWS)}
"""Every experiment by name, in the order of ``fewstep list``."""


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
