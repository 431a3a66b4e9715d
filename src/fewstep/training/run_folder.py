"""A run is a folder: settings, metrics, checkpoints, results and figures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from fewstep.training.checkpoint import load_checkpoint, save_checkpoint, write_whole


class RunFolder:
    """The files of one training run.

    - `metrics.jsonl`: a line for every logging interval and every validation.
    - `checkpoints/last.safetensors`: all that resuming needs; `checkpoints/best.safetensors`: the learner with the best
      validation.
    - `config.json`: the experiment and its settings, for runs of the command line. `fit.json`: the settings of
      [`fit`][fewstep.fit], for other runs.
    - `results.json`: the results of `fewstep evaluate`.

    Args:
        path: the folder; it is created when something is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.settings_file = self.path / "fit.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.results_file = self.path / "results.json"

    def checkpoint_file(self, which: str = "last") -> Path:
        """The file of the `"last"` or the `"best"` checkpoint."""
        return self.path / "checkpoints" / f"{which}.safetensors"

    def checkpoints(self) -> list[str]:
        """The checkpoints that exist, of `"last"` and `"best"` in this order."""
        return [which for which in ("last", "best") if self.checkpoint_file(which).is_file()]

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.checkpoint_file().is_file()

    def has_run(self) -> bool:
        """Whether training has written metrics or a checkpoint."""
        return self.has_checkpoint() or self.metrics_file.exists()

    def remove_if_unused(self) -> None:
        """Removes `config.json`, and the folder if it is empty then, unless training has written something."""
        if not self.has_run():
            self.config_file.unlink(missing_ok=True)
            if self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Writes `fit.json`, unless `config.json` has the settings."""
        if not self.config_file.exists():
            self.write_json(self.settings_file, settings)

    def settings(self) -> dict[str, Any]:
        """The content of `fit.json`; empty if there is none."""
        return self.read_json(self.settings_file) if self.settings_file.is_file() else {}

    def save(self, state: dict[str, Any], which: str = "last") -> None:
        """Replaces a checkpoint, atomically."""
        save_checkpoint(self.checkpoint_file(which), state)

    def load(self, which: str = "last") -> dict[str, Any]:
        """Reads a checkpoint."""
        return load_checkpoint(self.checkpoint_file(which))

    def read_json(self, file: Path) -> dict[str, Any]:
        """Reads a JSON file.

        Raises:
            ValueError: its content is not an object in JSON.
        """
        try:
            content = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"{file} is damaged: {error}.") from error
        if not isinstance(content, dict):
            raise ValueError(f"{file} is damaged: it holds {type(content).__name__}, not an object.")
        return content

    def write_json(self, file: Path, content: Any) -> None:
        """Writes a JSON file completely or not at all."""
        write_whole(file, (json.dumps(content, indent=2) + "\n").encode())

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Copies what resuming needs into another folder, whose content is replaced."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        (fresh / "checkpoints").mkdir(parents=True)
        checkpoints = [self.checkpoint_file(which) for which in self.checkpoints()]
        for file in (self.config_file, self.metrics_file, *checkpoints):
            if file.is_file():
                (fresh / file.relative_to(self.path)).write_bytes(file.read_bytes())  # read-only files stay so here
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)

    def log(self, row: dict[str, Any]) -> None:
        """Appends a line to `metrics.jsonl`."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.metrics_file, "a") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`. A line that was cut off when the process was killed is left out."""
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
        """Drops the metrics of iterations after a checkpoint, which will be trained again."""
        rows = [row for row in self.metrics() if row["iteration"] <= iteration]
        if self.metrics_file.is_file():
            write_whole(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows).encode())
