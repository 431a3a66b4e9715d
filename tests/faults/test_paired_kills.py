"""Two processes of which one is killed at any moment: the run continues from its checkpoint, and ends bit-identical."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import torch
from parallel.two import Two
from torch import Tensor

import fewstep as fs


class Slow(fs.tasks.Sinusoids):
    """Takes its time, so that kills meet every part of an iteration."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> fs.Task:
        time.sleep(0.01)
        return super().sample(n, generator)


def trained(folder: Path) -> list[Tensor]:
    learner = fs.maml(fs.models.MLP(1, [8], 1), fs.mse, inner_lr=0.01)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    fs.fit(
        learner, Slow(), optimizer, iterations=120, meta_batch=3, run=folder, resume=True, checkpoint_every=5,
        log_every=5, validation=Slow(), validate_every=20, num_validation_tasks=4, progress=False,
    )  # fmt: skip
    return [value.detach().clone() for value in learner.parameters()]


def killed(folder: Path, rank: int, after: float) -> Any:
    """Trains in two processes, of which one is killed some seconds after a checkpoint; returns the outcomes."""
    pair, checkpoint = Two(timeout=30.0), folder / "checkpoints" / "last.safetensors"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    def kill() -> None:
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            time.sleep(0.02)
        time.sleep(after)
        pair.processes[rank].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        return pair.outcomes(trained, folder)
    finally:
        killer.join()
        pair.close()


def test_a_run_of_two_processes_survives_the_death_of_either(tmp_path: Path) -> None:
    moments = random.Random(time.time_ns())
    for rank in (1, 0):
        after = moments.uniform(0.0, 0.5)
        found = killed(tmp_path / "killed", rank, after)
        assert found[rank][0] == "ended", (rank, after)
        assert "ProcessFailed" in found[1 - rank][0], (rank, after, found[1 - rank][0])
    pair = Two(timeout=30.0)
    try:
        first, second = pair(trained, tmp_path / "killed")
        whole, _ = pair(trained, tmp_path / "whole")
    finally:
        pair.close()
    for mine, theirs, uninterrupted in zip(first, second, whole, strict=True):
        assert torch.equal(mine, theirs)
        assert torch.equal(mine, uninterrupted)
    files = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("killed", "whole")]
    assert files[0] == files[1]
