"""Where the metrics of training go: a list, the run folder, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
from typing import Any

from fewstep.training.run_folder import RunFolder


class Recorder:
    """Collects rows of metrics, and writes them into a run folder.

    Args:
        folder: the run folder, if any.
        iteration: iterations completed before.
        settings: what the run folder notes about the training with its first row.
    """

    def __init__(self, folder: RunFolder | None, iteration: int, settings: dict[str, Any]) -> None:
        self.rows = [] if folder is None else folder.metrics()
        self._folder, self._iteration, self._settings = folder, iteration, settings
        self._began = False
        self._writer: Any = None

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row: `iteration` and numbers by name."""
        self.rows.append(row)
        if self._folder is None:
            return
        if not self._began:  # not earlier: training that fails at the start leaves nothing behind
            self._began = True
            self._folder.write_settings(self._settings)
            self._writer = _tensorboard(self._folder, self._iteration)
        self._folder.log(row)
        if self._writer is not None:
            for name in row.keys() - {"iteration"}:
                self._writer.add_scalar(name, row[name], row["iteration"])

    def close(self) -> None:
        """Closes the file of TensorBoard."""
        if self._writer is not None:
            self._writer.close()


def _tensorboard(folder: RunFolder, iteration: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder.path / "tensorboard"), purge_step=iteration + 1 if iteration else None)
