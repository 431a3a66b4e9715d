"""``fit`` and the commands with two processes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import parallel
from fewstep.tasks import Sinusoids, Task


def make(lr: float = 1e-2, rank_dependent: bool = False) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(int(os.environ.get("RANK", "0")) if rank_dependent else 0)
    learner = fs.maml(nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double(), fs.mse, inner_lr=0.01)
    return learner, torch.optim.SGD(learner.parameters(), lr)


def trained(folder: Path | None, iterations: int = 12, shared: bool = True, **options: Any) -> dict[str, Any]:
    learner, optimizer = make(rank_dependent=options.pop("rank_dependent", False), lr=options.pop("lr", 1e-2))
    if options.pop("wrapped", False):
        parallel.start()
        wrapped = nn.parallel.DistributedDataParallel(learner)
    else:
        wrapped = learner
    if shared:
        rows = fs.fit(
            wrapped, Sinusoids(), optimizer, iterations=iterations, meta_batch=5, run=folder, validation=Sinusoids(),
            validate_every=4, num_validation_tasks=7, log_every=3, checkpoint_every=5, progress=False, **options,
        )  # fmt: skip
    else:
        with parallel.alone():
            rows = fs.fit(
                wrapped, Sinusoids(), optimizer, iterations=iterations, meta_batch=5, run=folder,
                validation=Sinusoids(), validate_every=4, num_validation_tasks=7, log_every=3, checkpoint_every=5,
                progress=False, **options,
            )  # fmt: skip
    return {"rows": rows, "parameters": [value.detach().clone() for value in learner.parameters()]}


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_fit_with_two_processes_is_fit_with_one(two: Any, tmp_path: Path) -> None:
    alone = trained(tmp_path / "one", shared=False)
    first, second = two(trained, tmp_path / "two")
    assert same(first["parameters"], second["parameters"])
    torch.testing.assert_close(first["parameters"], alone["parameters"], rtol=1e-10, atol=1e-12)
    assert [row["iteration"] for row in first["rows"]] == [row["iteration"] for row in alone["rows"]]
    for mine, theirs in zip(first["rows"], alone["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == first["rows"]  # written once
    assert {file.name for file in (tmp_path / "two").rglob("*.safetensors")} == {
        file.name for file in (tmp_path / "one").rglob("*.safetensors")
    }
    assert same(two(trained, None, wrapped=True)[1]["parameters"], first["parameters"])


def test_every_process_begins_with_the_learner_of_the_first(two: Any) -> None:
    first, second = two(trained, None, rank_dependent=True)
    assert same(first["parameters"], second["parameters"])
    assert same(two(trained, None)[0]["parameters"], first["parameters"])


def resumed(folder: Path, **options: Any) -> Any:
    trained(folder, iterations=7)
    return trained(folder, iterations=12, resume=True, **options)


def test_a_resumed_run_equals_an_uninterrupted_one(two: Any, tmp_path: Path) -> None:
    whole, parts = two(trained, tmp_path / "whole"), two(resumed, tmp_path / "parts")
    assert same(whole[0]["parameters"], parts[1]["parameters"])
    alone = trained(tmp_path / "parts", iterations=14, shared=False, resume=True)  # goes on in one process
    assert len(alone["rows"]) > len(parts[0]["rows"])


def refused(folder: Path) -> str:
    try:
        trained(folder, iterations=2)
    except FileExistsError as error:
        return str(error)
    return "nothing"


def test_an_error_about_the_folder_reaches_all(two: Any, tmp_path: Path) -> None:
    two(trained, tmp_path / "run", iterations=2)
    assert all("already holds a run" in words for words in two(refused, tmp_path / "run"))
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    trained(tmp_path / "run", iterations=2, shared=False, resume=True)  # the lock was released
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


class Signals(Sinusoids):
    """Sends a signal to one process when a meta-batch is drawn."""

    def __init__(self, rank: int, at: int) -> None:
        super().__init__()
        self.rank, self.at, self.drawn = rank, at, 0

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        self.drawn += n > 2  # not the two draws of two tasks that check the source
        if n > 2 and self.drawn == self.at and parallel.current().rank == self.rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().sample(n, generator)


def interrupted(folder: Path, rank: int, in_validation: bool) -> tuple[str, int, list[Tensor]]:
    learner, optimizer = make()
    source = Signals(rank, 2 if in_validation else 4)
    words = "nothing"
    try:
        fs.fit(
            learner, Sinusoids() if in_validation else source, optimizer, iterations=20, meta_batch=5, run=folder,
            progress=False,
            **({"validate_every": 3, "validation": source} if in_validation else {}),
        )  # fmt: skip
    except fs.TrainingInterrupted as interrupt:
        words = str(interrupt)
    with parallel.together() as processes:
        saved = (
            processes.of_first(lambda: fs.training.RunFolder(folder).load()["iteration"]) if words != "nothing" else -1
        )
    return words, saved, [value.detach().clone() for value in learner.parameters()]


@pytest.mark.parametrize("in_validation", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_all_after_the_same_iteration(
    two: Any, tmp_path: Path, rank: int, in_validation: bool
) -> None:
    first, second = two(interrupted, tmp_path / "run", rank, in_validation)
    assert "and saved" in first[0]
    assert first[0] == second[0]
    assert first[1] == second[1] >= 3
    assert same(first[2], second[2])


def out_of_time() -> tuple[int, list[Tensor]]:
    learner, optimizer = make()
    deadline = time.monotonic() + (1.0 if os.environ["RANK"] == "1" else 1e6)
    rows = fs.fit(
        learner, Sinusoids(), optimizer, iterations=10**6, deadline=deadline, log_every=10**6, validation=Sinusoids(),
        validate_every=10**6, progress=False,
    )  # fmt: skip
    return rows[-1]["iteration"], [value.detach().clone() for value in learner.parameters()]


def test_the_time_limit_of_one_process_ends_all_after_the_same_iteration(two: Any) -> None:
    first, second = two(out_of_time)
    assert first[0] == second[0] > 1
    assert same(first[1], second[1])


class Bad(Sinusoids):
    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        tasks = super().sample(n, generator)
        tasks.query.y[4] = torch.nan
        return tasks


def diverged() -> str:
    learner, optimizer = make()
    try:
        fs.fit(learner, Bad(), optimizer, iterations=3, meta_batch=5, progress=False)
    except fs.TrainingDiverged as error:
        return str(error)
    return "nothing"


def test_nan_in_the_share_of_one_process_ends_all_and_names_the_task(two: Any) -> None:
    first, second = two(diverged)
    assert "Task 4 of 5" in first
    assert first == second


def command(folder: Path, *words: str) -> str:
    """Runs a command; returns its error."""
    import contextlib
    import io

    from fewstep.cli import main

    os.chdir(folder)
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        main([*words, "--allocator", "default"])
    return told.getvalue()


def test_the_commands(two: Any, tmp_path: Path) -> None:
    small = ["--iterations", "6", "--no-compile", "--validation-tasks", "4", "--meta-batch", "4", "--log-every", "2"]
    train = ["train", "sinusoid-5shot-maml", *small, "--run", "run"]
    two(command, tmp_path, *train)
    run = tmp_path / "run"
    assert [json.loads(line)["iteration"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [2, 4, 6, 6]
    two(command, tmp_path, "evaluate", "run", "--tasks", "6")
    assert json.loads((run / "results-tasks-6.json").read_text())["tasks"] == 6
    assert all("already holds a run" in words for words in two(command, tmp_path, *train))
    assert two(command, tmp_path, *train, "--resume-if-begun")[0].count("fewstep:") == 0
    other = [word if word != "4" else "8" for word in train]
    assert "begun with other options" in two(command, tmp_path, *other, "--resume-if-begun")[0]
    assert "list runs in one process" in two(command, tmp_path, "list")[0]
