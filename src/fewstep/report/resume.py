"""How a run is resumed, tested or repeated."""

from __future__ import annotations

import shlex

from fewstep.report.contents import RunContents


def how_to_resume(run: RunContents) -> list[tuple[str, str]]:
    """Sentences, each with the command or the program that it announces, which may be empty."""
    if run.path is None:
        return [
            ("These results have no run folder here. Train the experiment again:", f"fewstep train {run.experiment}")
        ]
    place = shlex.quote(str(run.path))
    if run.experiment is None:
        program = f"fewstep.fit(learner, source, optimizer, iterations=..., run={str(run.path)!r}, resume=True)"
        return [("Run the program again with the same learner, source and settings, more iterations and:", program)]
    if run.row is None:
        return [("Install the version of fewstep that the run was made with, then:", f"fewstep train --resume {place}")]
    steps = []
    if run.finished:
        steps.append(("The run is finished.", ""))
    elif run.checkpoint is None:
        steps.append(("Nothing has been saved yet, so training starts from the beginning:", ""))
    else:
        steps.append(("Training resumes at the last checkpoint:", ""))
    if not run.finished:
        steps[0] = (steps[0][0], f"fewstep train --resume {place}")
    if run.results is None and run.checkpoint is not None:
        steps.append(("Test it:", f"fewstep evaluate {place}"))
    return steps
