"""What an outer optimiser of policies tells of its steps."""

from __future__ import annotations

from fewstep.tasks import Task


class Reports:
    """Numbers of each step, gathered until somebody asks for their means."""

    def __init__(self) -> None:
        self._reports: list[dict[str, float]] = []

    def add(self, trajectories: Task, **found: float) -> None:
        """Notes a step.

        Args:
            trajectories: of [`collect`][fewstep.rl.MetaPolicy.collect]: the mean returns before and after adaptation.
            found: what else there is to tell.
        """
        before, after = trajectories.support.returns[:, 0].mean(), trajectories.query.returns.mean()
        self._reports.append({"return_before": before.item(), "return_after": after.item(), **found})

    def means(self) -> dict[str, float]:
        """Means over the steps since this was last asked; [`fit`][fewstep.fit] writes them beside the loss."""
        reports, self._reports = self._reports, []
        return {name: sum(r[name] for r in reports) / len(reports) for name in (reports[0] if reports else ())}
