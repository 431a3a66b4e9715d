"""A run is a folder: settings, metrics, checkpoints, results and figures."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fewstep.training.checkpoint import TEMPORARY, load_checkpoint, save_checkpoint, write_whole

LAST, PREVIOUS, BEST = "last", "previous", "best"


class RunFolder:
    """The files of one training run.

    - `metrics.jsonl`: a line for every logging interval and every validation.
    - `checkpoints/last.safetensors`: all that resuming needs; `checkpoints/previous.safetensors`: the one before it, in
      case the last one is damaged; `checkpoints/best.safetensors`: the learner with the best validation.
    - `config.json`: the experiment and its settings, for runs of the command line. `fit.json`: the settings of
      [`fit`][fewstep.fit], for other runs.
    - `results.json`: the results of `fewstep evaluate`.
    - `.lock`: the process that trains holds a lock on it.

    Args:
        path: the folder; it is created when something is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.settings_file = self.path / "fit.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.results_file = self.path / "results.json"
        self.lock_file = self.path / ".lock"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A context in which no other process trains in this folder; it may be entered again inside.

        The lock ends with the process, whatever ends it. Temporary files that dead processes left are removed. If
        nothing was written into a new folder, it is removed.

        Raises:
            BlockingIOError: another process trains in this folder.
        """
        new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock_file, timeout=0, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"Another process is training in {self.path}. Wait until it has ended, stop it, or use another folder."
            ) from None
        try:
            self._remove_temporary_files()
            yield
        finally:
            if new and all(file == self.lock_file for file in self.path.iterdir()):
                self._remove()
            lock.release()

    def _remove_temporary_files(self) -> None:
        """Removes the temporary files of dead processes.

        Results are written without the lock; their temporary files belong to dead processes if they are an hour old.
        """
        locked = tuple(f".{file.name}." for file in (self.metrics_file, self.settings_file, self.config_file))
        for file in [*self.path.glob(f".*{TEMPORARY}"), *self.path.glob(f"checkpoints/.*{TEMPORARY}")]:
            with suppress(FileNotFoundError):
                under_lock = file.parent != self.path or file.name.startswith(locked)
                if under_lock or file.stat().st_mtime < time.time() - 3600:
                    file.unlink()

    def checkpoint_file(self, which: str = LAST) -> Path:
        """The file of the `"last"`, the `"previous"` or the `"best"` checkpoint."""
        return self.path / "checkpoints" / f"{which}.safetensors"

    def checkpoints(self) -> list[str]:
        """The checkpoints that exist, of `"last"` and `"best"` in this order."""
        return [which for which in (LAST, BEST) if self.checkpoint_file(which).is_file()]

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.checkpoint_file().is_file()

    def has_run(self) -> bool:
        """Whether training has written metrics or a checkpoint."""
        return self.has_checkpoint() or self.checkpoint_file(PREVIOUS).is_file() or self.metrics_file.exists()

    def remove_if_unused(self) -> None:
        """Removes `config.json`, and the folder if it is empty then, unless training has written something."""
        if not self.has_run() and self.path.is_dir():
            with self.writing():
                self.config_file.unlink(missing_ok=True)
                if all(file == self.lock_file for file in self.path.iterdir()):
                    self._remove()

    def _remove(self) -> None:
        self.lock_file.unlink(missing_ok=True)
        with suppress(OSError):  # another process has begun to write into it
            self.path.rmdir()

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Writes `fit.json`, unless `config.json` has the settings."""
        if not self.config_file.exists():
            self.write_json(self.settings_file, settings)

    def settings(self) -> dict[str, Any]:
        """The content of `fit.json`; empty if there is none."""
        return self.read_json(self.settings_file) if self.settings_file.is_file() else {}

    def save(self, state: dict[str, Any], which: str = LAST) -> None:
        """Replaces a checkpoint, atomically; the `"last"` one before it stays as the `"previous"` one."""
        file = self.checkpoint_file(which)
        if which == LAST and file.is_file():
            _second_name(file, self.checkpoint_file(PREVIOUS))
        save_checkpoint(file, state)

    def load(self, which: str = LAST) -> dict[str, Any]:
        """Reads a checkpoint."""
        return load_checkpoint(self.checkpoint_file(which))

    def load_to_resume(self, checkpoint_every: int) -> dict[str, Any] | None:
        """Reads the last checkpoint, or with a warning the previous one if it is damaged; `None` for a new run.

        Args:
            checkpoint_every: iterations between checkpoints, where the folder does not say it.

        Raises:
            ValueError: both are damaged.
            FileNotFoundError: there is none, but according to the metrics there was one.
        """
        last, previous = self.checkpoint_file(LAST), self.checkpoint_file(PREVIOUS)
        if not last.is_file() and not previous.is_file():
            self._check_is_new(checkpoint_every)
            return None
        try:
            return self.load()
        except (ValueError, FileNotFoundError) as error:
            if not previous.is_file():
                raise
            state = self.load(PREVIOUS)
            warnings.warn(
                f"{error} Resuming from {previous}, which was saved at iteration {state['iteration']:,}.", stacklevel=2
            )
        _second_name(previous, last)
        return state

    def _check_is_new(self, checkpoint_every: int) -> None:
        if self.config_file.is_file():
            settings = self.read_json(self.config_file).get("training", {})
        else:
            settings = self.settings()
        every = int(settings.get("checkpoint_every", checkpoint_every))
        done = max((row["iteration"] for row in self.metrics()), default=0)
        if done > every:  # the metrics of an iteration are written before its checkpoint
            raise FileNotFoundError(
                f"{self.path} has metrics of {done:,} iterations but no checkpoint, though one is saved every "
                f"{every:,}. Put {self.checkpoint_file()} back, or train from the start in another folder."
            )

    def read_json(self, file: Path) -> dict[str, Any]:
        """Reads a JSON file.

        Raises:
            ValueError: its content is not an object in JSON.
        """
        try:
            content = json.loads(file.read_text())
        except (ValueError, RecursionError) as error:
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
        """The lines of `metrics.jsonl`.

        A damaged line is left out with a warning. A line that was cut off when the process was killed is left out.
        """
        if not self.metrics_file.is_file():
            return []
        rows = []
        *lines, cut_off = self.metrics_file.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            row = _row(line)
            if row is not None:
                rows.append(row)
            elif line.strip():
                warnings.warn(f"{self.metrics_file}: line {number} is damaged and is left out.", stacklevel=2)
        row = _row(cut_off)
        return rows if row is None else [*rows, row]

    def forget_after(self, iteration: int, validation_too: bool = False) -> None:
        """Drops the metrics of iterations after a checkpoint, which will be trained again.

        Args:
            iteration: that of the checkpoint.
            validation_too: also drop the validation of this iteration, which will be repeated.
        """
        if self.metrics_file.is_file():
            repeated = iteration if validation_too else iteration + 1
            rows = [
                row for row in self.metrics()
                if row["iteration"] <= iteration and not (row["iteration"] >= repeated and "validation" in row)
            ]  # fmt: skip
            write_whole(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of metrics; `None` if it is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("iteration"), int) else None


def _second_name(file: Path, name: Path) -> None:
    """Gives a file a second name, atomically, which replaces a file of this name."""
    fresh = name.with_name(f".{name.name}.{os.getpid()}{TEMPORARY}")
    fresh.unlink(missing_ok=True)
    try:
        os.link(file, fresh)
    except OSError:  # a file system without links
        shutil.copyfile(file, fresh)
    os.replace(fresh, name)
    fresh.unlink(missing_ok=True)  # if both are names of one file, nothing was replaced
