"""Learning curves as they are committed: the lines of ``metrics.jsonl``, thinned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewstep.experiments.result_files import read_lines
from fewstep.training.checkpoint import write_whole


def thinned(metrics: Sequence[dict[str, Any]], lines: int = 200) -> list[dict[str, Any]]:
    """Every validation, and the loss averaged over so many neighbours that at most ``lines`` are left.

    Args:
        metrics: as :func:`fewstep.fit` returns them.
        lines: of losses.

    >>> thinned([{"iteration": i, "loss": float(i)} for i in range(1, 6)], lines=3)
    [{'iteration': 2, 'loss': 1.5}, {'iteration': 4, 'loss': 3.5}, {'iteration': 5, 'loss': 5.0}]
    """
    losses = [row for row in metrics if "loss" in row]
    stride = max(1, -(-len(losses) // lines))
    chunks = [losses[i : i + stride] for i in range(0, len(losses), stride)]
    kept = [
        {"iteration": chunk[-1]["iteration"], "loss": _short(sum(row["loss"] for row in chunk) / len(chunk))}
        for chunk in chunks
    ]
    validations = [
        {key: _short(value) if isinstance(value, float) else value for key, value in row.items()}
        for row in metrics
        if "validation" in row
    ]
    return sorted(kept + validations, key=lambda row: row["iteration"])


def save_curve(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the thinned metrics, a line of JSON each."""
    write_whole(path, "".join(json.dumps(row) + "\n" for row in thinned(metrics)).encode())


def load_curves(folder: Path, experiment: str) -> dict[int, list[dict[str, Any]]]:
    """The committed learning curves of an experiment by seed."""
    curves = {}
    for file in sorted((folder / "curves").glob(f"{experiment}-seed*.jsonl")):
        seed = file.stem.removeprefix(f"{experiment}-seed")
        if seed.isdecimal():  # otherwise the file is of another experiment or of somebody else
            curves[int(seed)] = read_lines(file)
    return curves


def _short(value: float) -> float:
    return float(f"{value:.6g}")
