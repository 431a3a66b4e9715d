"""Reports of the steps of an outer optimiser of policies."""

from __future__ import annotations

from fewstep.tasks import Task


class Reports:
    """Numbers of each step, which are averaged when they are read."""

    def __init__(self) -> None:
        self._reports: list[dict[str, float]] = []

    def add(self, trajectories: Task, **found: float) -> None:
        """Add a step.

        Args:
            trajectories: the result of [`collect`][fewstep.rl.MetaPolicy.collect], whose mean returns are reported.
            **found: further numbers.
        """
        before, after = trajectories.support.returns[:, 0].mean(), trajectories.query.returns.mean()
        self._reports.append({"return_before": before.item(), "return_after": after.item(), **found})

    def means(self) -> dict[str, float]:
        """Return means over the steps since the last call, which [`fit`][fewstep.fit] logs with the loss."""
        reports, self._reports = self._reports, []
        return {name: sum(r[name] for r in reports) / len(reports) for name in (reports[0] if reports else ())}
