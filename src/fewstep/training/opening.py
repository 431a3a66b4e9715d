"""The run folder of a training: opened by the first process, locked, and the state restored from it in all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fewstep.parallel import Processes
from fewstep.training.run_folder import RunFolder
from fewstep.training.settings import OPTIONS
from fewstep.training.state import State


@contextmanager
def opened(
    run: str | os.PathLike[str] | None,
    state: State,
    resume: bool,
    override: Iterable[str],
    checkpoint_every: int,
    processes: Processes,
) -> Iterator[RunFolder | None]:
    """The folder, locked for the first process; `None` in the others and without `run`.

    The state is restored from it if the run is resumed. Otherwise all processes begin with the state of the first.
    """
    with ExitStack() as stack:
        folder = None if run is None else RunFolder(run)

        def read() -> tuple[dict[str, Any] | None, dict[str, Any]]:
            return (None, {}) if folder is None else _read(folder, resume, checkpoint_every, stack)

        saved, older = processes.of_first(read)
        if saved is not None:
            state.restore(saved, override, older)
        elif processes.size > 1:
            state.restore(processes.of_first(state.snapshot))
        if folder is not None and resume and processes.is_first:
            folder.forget_after(state.iteration, state.validation_is_due)
        yield folder if processes.is_first else None


def _read(
    folder: RunFolder, resume: bool, checkpoint_every: int, stack: ExitStack
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """What to resume from, if anything, and settings of the run for checkpoints that do not hold them."""
    if folder.path.exists() and not folder.path.is_dir():
        raise NotADirectoryError(f"fit: run= is a folder, which will be created; {folder.path} is a file.")
    stack.enter_context(folder.writing())
    if not resume and folder.has_run():
        raise FileExistsError(f"{folder.path} already holds a run. Pass resume=True to resume it, or another folder.")
    if not resume:
        return None, {}
    older = {name: value for name, value in folder.settings().items() if name in OPTIONS}
    return folder.load_to_resume(checkpoint_every), older
