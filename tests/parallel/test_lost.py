"""A process that hangs or ends does not leave the others waiting for ever, and is named."""

from __future__ import annotations

import os
import time
from typing import Any

from parallel.two import Two

import fewstep as fs
from fewstep import parallel


def steps(hangs: int | None = None, ends: int | None = None) -> str:
    learner = fs.maml(fs.models.MLP(1, [4], 1), fs.mse, inner_lr=0.05)
    tasks = fs.tasks.Sinusoids().sample(4)
    with parallel.together() as processes:
        learner.meta_gradient(tasks)
        if processes.rank == ends:
            os._exit(1)
        if processes.rank == hangs:
            time.sleep(9)
        try:
            learner.meta_gradient(tasks)
        except parallel.ProcessFailed as error:
            return str(error)
    return "nothing"


def test_a_process_that_hangs_is_named() -> None:
    pair = Two(timeout=3.0)
    try:
        first, _ = pair.outcomes(steps, hangs=1)
        assert "process 1 of 2 ended, or did not answer within 3 s" in first[1]
    finally:
        pair.close()


def test_a_process_that_ends_is_named() -> None:
    pair = Two(timeout=30.0)
    try:
        began = time.monotonic()
        found: list[tuple[str, Any]] = pair.outcomes(steps, ends=1)
        assert "process 1 of 2 ended" in found[0][1]
        assert time.monotonic() - began < 60
    finally:
        pair.close()
