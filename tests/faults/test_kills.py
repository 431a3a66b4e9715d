"""A training that is killed at random moments ends as one that was not: the short version of benchmarks/chaos.py."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import fewstep
from fewstep.tasks import Sinusoids
from fewstep.training import RunFolder

TIMES = {"seconds", "validation_seconds", "latest_validation_seconds", "starting_seconds", "paces"}


def train(folder: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    learner = fewstep.maml(model, fewstep.mse, 0.01)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    fewstep.fit(
        learner, Sinusoids(), optimizer, iterations=60, meta_batch=2, log_every=3, checkpoint_every=6,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60), validation=Sinusoids(), validate_every=12,
        num_validation_tasks=20, run=folder, resume=True, progress=False,
    )  # fmt: skip


def forked(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(folder)
            code = 0
        finally:
            os._exit(code)
    return child


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("seed", [0, 1])
def test_random_kills_end_bit_identically(seed: int, tmp_path: Path):
    train(tmp_path / "whole")
    draw, folder, kills = random.Random(seed), RunFolder(tmp_path / "killed"), 0
    for _ in range(40):
        child = forked(folder.path)
        wanted = len(folder.metrics()) + draw.randrange(1, 5) if kills < 5 else 10**6
        while not os.waitpid(child, os.WNOHANG)[0]:
            if len(folder.metrics()) >= wanted:
                time.sleep(draw.uniform(0, 0.01))
                os.kill(child, signal.SIGKILL)
                kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
                break
            time.sleep(0.001)
        else:
            break
    assert kills >= 2  # the last ones may come when it has ended
    whole = RunFolder(tmp_path / "whole")
    for which in ("last", "best"):
        ours, theirs = folder.load(which), whole.load(which)
        assert [key for key in theirs.keys() - TIMES if not same(ours[key], theirs[key])] == []
    assert folder.metrics() == whole.metrics()
    assert not list(folder.path.rglob(".*.tmp"))


def test_another_process_that_trains_in_the_folder_is_refused_and_both_are_whole(tmp_path: Path):
    child = forked(tmp_path)
    while not RunFolder(tmp_path).has_run():
        time.sleep(0.001)
    with pytest.raises(BlockingIOError, match="Another process is training"):
        train(tmp_path)
    assert os.waitpid(child, 0)[1] == 0
    steps = [row["iteration"] for row in RunFolder(tmp_path).metrics() if "loss" in row]
    assert steps == list(range(3, 61, 3))
