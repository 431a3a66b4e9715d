"""A run is a folder: config.json, metrics.jsonl, checkpoints, results.json and plots."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from fewstep.training.checkpoint import load_checkpoint, save_checkpoint, write_whole


class RunFolder:
    """The files of one training run.

    ``config.json`` says what was trained, ``metrics.jsonl`` holds a line per logging interval and per validation,
    ``checkpoints/last.safetensors`` all that resuming needs, ``checkpoints/best.safetensors`` the learner that did
    best in validation, ``results.json`` what evaluation found.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.results_file = self.path / "results.json"

    def checkpoint_file(self, which: str = "last") -> Path:
        """Where the ``"last"`` or the ``"best"`` checkpoint lies."""
        return self.path / "checkpoints" / f"{which}.safetensors"

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from."""
        return self.checkpoint_file().is_file()

    def save(self, state: dict[str, Any], which: str = "last") -> None:
        """Replaces a checkpoint, atomically."""
        save_checkpoint(self.checkpoint_file(which), state)

    def load(self, which: str = "last") -> dict[str, Any]:
        """Reads a checkpoint."""
        return load_checkpoint(self.checkpoint_file(which))

    def write_json(self, file: Path, content: Any) -> None:
        """Writes a JSON file whole or not at all."""
        write_whole(file, (json.dumps(content, indent=2) + "\n").encode())

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Puts what resuming needs into another folder, in place of what is there."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        (fresh / "checkpoints").mkdir(parents=True)
        checkpoints = [self.checkpoint_file(which) for which in ("last", "best")]
        for file in (self.config_file, self.metrics_file, *checkpoints):
            if file.is_file():
                (fresh / file.relative_to(self.path)).write_bytes(file.read_bytes())  # read-only files stay so here
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)

    def log(self, row: dict[str, Any]) -> None:
        """Appends a line to ``metrics.jsonl``."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.metrics_file, "a") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; one that was cut off by a kill is left out."""
        if not self.metrics_file.is_file():
            return []
        rows = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def forget_after(self, iteration: int) -> None:
        """Drops the metrics of iterations beyond a checkpoint: they will be trained again."""
        rows = [row for row in self.metrics() if row["iteration"] <= iteration]
        if self.metrics_file.is_file():
            write_whole(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows).encode())
