"""Writing a report."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path

from fewstep.experiments.runs import Run
from fewstep.files import read_regular
from fewstep.report.charts import picture
from fewstep.report.contents import RunContents, read_run, read_table
from fewstep.report.markup import Html, element
from fewstep.report.page import page
from fewstep.training.checkpoint import write_whole

_LARGEST_FILM = 2**26


def write_report(
    runs: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str] | None = None, examples: bool = True
) -> Path:
    """Writes one HTML file about one or several run folders.

    The file needs nothing else: no script, no network, no other file.

    Args:
        runs: run folders, of experiments or of [`fit`][fewstep.fit].
        path: the file; ``report.html`` in the only run folder, or in the parent of the first of several, if not given.
        examples: whether to adapt each learner to an example task and draw what it does.

    Returns:
        The file.

    Raises:
        FileNotFoundError: a folder is missing or is not a run folder.

    Examples:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.jsonl").write_text('{"iteration": 10, "loss": 0.5}')
        >>> write_report([folder]).name
        'report.html'
    """
    if not runs:
        raise ValueError("A report needs at least one run folder.")
    found = _unambiguous([read_run(run) for run in runs])
    drawn = [_example(run, f"example-{number}") if examples else None for number, run in enumerate(found)]
    first = Path(runs[0])
    folder = first if len(found) == 1 else first.resolve().parent
    title = found[0].name if len(found) == 1 else f"{len(found)} runs"
    return _write(page(found, drawn, title), folder / "report.html" if path is None else Path(path))


def write_table_report(results: Path, table: str, path: Path) -> Path:
    """Writes one HTML file about the results of a table as `fewstep reproduce` writes them.

    Args:
        results: the folder of the results.
        table: the name of the table.
        path: the file.
    """
    found = read_table(results, table)
    return _write(page(found, [None] * len(found), f"Reproduction: {table}"), path)


def _write(content: str, path: Path) -> Path:
    write_whole(path, content.encode())
    return path


def _unambiguous(runs: list[RunContents]) -> list[RunContents]:
    """Runs in folders of one name are called by their paths."""
    names = [run.name for run in runs]
    return [RunContents(**{**vars(run), "name": str(run.path)}) if names.count(run.name) > 1 else run for run in runs]


def _example(run: RunContents, prefix: str) -> Html | None:
    """What the learner does in a task: the film that `fewstep plot` has written, or else drawn now; or why not."""
    if run.path is None or run.row is None or run.checkpoint is None:
        return None
    film = run.path / "film.png"
    if film.is_file():
        source = f"data:image/png;base64,{base64.b64encode(read_regular(film, _LARGEST_FILM)).decode()}"
        image = element("img", src=source, alt="Pictures of the robot before and after adaptation")
        return element("figure", image, element("figcaption", "Before and after adaptation, at equal intervals."))
    try:
        opened = Run(run.path)
        made = opened.experiment.example(opened)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, ImportError) as error:
        return element("p", f"It cannot be drawn: {error}", class_="note")
    if made is None:
        words = f"There is no picture of a task yet; where fewstep plot {run.path} writes film.png, it is shown here."
        return element("p", words, class_="muted")
    drawn, caption = made
    return picture(drawn, caption, prefix, caption)
