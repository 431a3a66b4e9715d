"""What was tested, in words."""

from __future__ import annotations

from typing import Any

from fewstep.experiments.runs import Run


def checkpoint_of(run: Run, found: dict[str, Any]) -> str:
    """The run, its seed, and which of its checkpoints."""
    planned = run.experiment.iterations
    trained = f"{found['iterations']:,}" + (f" of {planned:,}" if found["iterations"] < planned else "")
    return (
        f"{run.name}, seed {found['seed']}, {found['checkpoint']} checkpoint "
        f"(iteration {found['checkpoint_iteration']:,}; trained for {trained})"
    )


def examples_of(run: Run, queries: int | None, config: dict[str, Any] | None = None) -> str:
    """On how many query examples, or episodes."""
    if queries is None:
        tested = config or {}
        of_paper = ", the authors' goals" if tested.get("test_goals") == "paper" else ""
        return f"{tested.get('test_episodes') or run.experiment.shots} episodes a step{of_paper}"
    each = " of each class" if hasattr(run.experiment, "ways") else ""
    return f"{queries} query example{'s' * (queries != 1)}{each}"
