"""Training: the outer loop, its files, and that it can be stopped at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep
from fewstep.tasks import Batch, Sinusoids, Task
from fewstep.training import RunFolder, load_checkpoint, save_checkpoint
from fewstep.training.progress import Progress


def make(lr: float = 1e-2, dropout: float = 0.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
    learner = fewstep.maml(model, fewstep.mse, inner_lr=0.01)
    return learner, torch.optim.Adam(learner.parameters(), lr)


def parameters(learner: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in learner.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_fit_is_the_loop_a_user_would_write():
    learner, optimizer = make()
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=7, meta_batch=3, seed=5, clip_value=0.1, clip_norm=0.2,
                progress=False)  # fmt: skip
    ours, optimizer = make()
    for i in range(7):
        optimizer.zero_grad()
        ours.meta_loss(Sinusoids().sample(3, fewstep.tasks.generator(5, i))).backward()
        nn.utils.clip_grad_value_(ours.parameters(), 0.1)
        nn.utils.clip_grad_norm_(ours.parameters(), 0.2)
        optimizer.step()
    assert equal(parameters(learner), parameters(ours))


def test_clipping_changes_the_result():
    results = []
    for clip in ({}, {"clip_norm": 1e-3}, {"clip_value": 1e-3}):
        learner, _ = make()
        optimizer = torch.optim.SGD(learner.parameters(), 0.1)
        fewstep.fit(learner, Sinusoids(), optimizer, iterations=3, progress=False, **clip)
        results.append(parameters(learner))
    assert not equal(results[0], results[1])
    assert not equal(results[0], results[2])


def test_maml_learns_sinusoids():
    torch.manual_seed(0)
    learner = fewstep.maml(fewstep.models.MLP(1, [40, 40], 1), fewstep.mse, inner_lr=0.01)
    before = fewstep.evaluate(learner, Sinusoids(), num_tasks=100, steps=5).mean[-1]
    fewstep.fit(learner, Sinusoids(), torch.optim.Adam(learner.parameters(), 2e-3), iterations=1500, progress=False)
    after = fewstep.evaluate(learner, Sinusoids(), num_tasks=100, steps=5)
    assert after.mean[-1] < 0.45 * before
    assert after.mean[-1] < 0.6 * after.mean[0], "adaptation must help"


@pytest.mark.parametrize("stop", [1, 10, 13, 20])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, stop: int):
    def train(folder: Path, iterations: int) -> tuple[list[Tensor], list[dict]]:
        learner, optimizer = make(dropout=0.3)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
        metrics = fewstep.fit(
            learner, Sinusoids(), optimizer, iterations=iterations, scheduler=scheduler, run=folder, resume=True,
            checkpoint_every=10, log_every=5, validation=Sinusoids(), validate_every=10, num_validation_tasks=5,
            progress=False,
        )  # fmt: skip
        return parameters(learner), metrics

    whole, _ = train(tmp_path / "whole", 30)
    train(tmp_path / "parts", stop)
    resumed, metrics = train(tmp_path / "parts", 30)
    assert equal(whole, resumed)
    assert metrics == RunFolder(tmp_path / "parts").metrics()
    assert metrics[-1]["iteration"] == 30


OPTIONS = ["sinusoid-5shot-maml", "--iterations", "400", "--no-compile", "--checkpoint-every", "20", "--log-every",
           "10", "--validate-every", "100", "--validation-tasks", "10", "--meta-batch", "4"]  # fmt: skip


def start(errors: Path, *words: str) -> subprocess.Popen:
    """``fewstep train WORDS`` in a process of its own, its standard error in a file."""
    with open(errors, "w") as file:
        command = [sys.executable, "-m", "fewstep", "--allocator", "default", "train", *words]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)


def test_killed_process_resumes_bit_identically(tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    errors = tmp_path / "errors.txt"
    uninterrupted = start(tmp_path / "other-errors.txt", *OPTIONS, "--run", str(whole))
    process = start(errors, *OPTIONS, "--run", str(killed))
    deadline = time.monotonic() + 120
    for kills in range(3):  # at a different moment of the run each time
        target = 40 + 90 * kills
        while time.monotonic() < deadline and process.poll() is None:
            rows = RunFolder(killed).metrics()
            if rows and rows[-1]["iteration"] >= target:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
        process = start(errors, "--resume", str(killed))
    assert process.wait(timeout=120) == 0, errors.read_text()
    assert uninterrupted.wait(timeout=120) == 0
    a, b = (load_checkpoint(RunFolder(folder).checkpoint_file()) for folder in (whole, killed))
    assert a["iteration"] == b["iteration"] == 400
    for part in ("learner", "random"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    assert RunFolder(whole).metrics() == RunFolder(killed).metrics()


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path):
    run = tmp_path / "run"
    errors = tmp_path / "errors.txt"
    process = start(errors, "sinusoid-5shot-maml", "--no-compile", "--run", str(run))
    deadline = time.monotonic() + 60
    while not RunFolder(run).metrics() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert f"fewstep train --resume {run}" in errors.read_text()
    saved = RunFolder(run).load()
    assert saved["iteration"] >= RunFolder(run).metrics()[-1]["iteration"] > 0


def test_ctrl_c_in_a_program_says_how_the_program_resumes(tmp_path: Path):
    class Interrupting:
        def __init__(self, at: int) -> None:
            self.calls, self.at = 0, at

        def sample(self, n, generator=None):
            self.calls += n > 2  # not the two draws of two tasks that check the source
            if self.calls == self.at and n > 2:
                signal.raise_signal(signal.SIGINT)
            return Sinusoids().sample(n, generator)

    learner, optimizer = make()
    with pytest.raises(fewstep.TrainingInterrupted) as stopped:
        fewstep.fit(learner, Interrupting(3), optimizer, iterations=6, run=tmp_path / "run", progress=False)
    assert str(stopped.value) == (
        f"Stopped after 3 of 6 iterations and saved {tmp_path / 'run'}. To resume, call fit again with the same "
        "arguments and resume=True."
    )
    assert "fewstep train" not in str(stopped.value)
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=6, run=tmp_path / "run", resume=True, progress=False)
    whole, other = make()
    fewstep.fit(whole, Sinusoids(), other, iterations=6, progress=False)
    assert equal(parameters(learner), parameters(whole))
    with pytest.raises(fewstep.TrainingInterrupted, match="Nothing was saved"):
        fewstep.fit(learner, Interrupting(1), optimizer, iterations=6, progress=False)


def test_the_default_optimizer_is_adam(tmp_path: Path):
    learner, optimizer = make(lr=1e-3)
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=3, progress=False)
    other, _ = make()
    fewstep.fit(other, Sinusoids(), iterations=3, progress=False)
    assert equal(parameters(learner), parameters(other))


def test_an_optimizer_of_ones_own_module_is_refused_with_the_line_to_write(tmp_path: Path):
    model = nn.Linear(1, 1)
    learner = fewstep.maml(model, fewstep.mse, inner_lr=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with pytest.raises(ValueError, match="its own copy") as refused:
        fewstep.fit(learner, Sinusoids(), optimizer, iterations=3, run=tmp_path / "run")
    assert str(refused.value).endswith("optimizer = torch.optim.SGD(learner.parameters(), lr=0.5)")
    assert not (tmp_path / "run").exists()


def test_load_gives_the_best_learner(tmp_path: Path):
    learner, optimizer = make(lr=0.3)
    metrics = fewstep.fit(
        learner, Sinusoids(), optimizer, iterations=20, run=tmp_path, validation=Sinusoids(), validate_every=5,
        num_validation_tasks=20, progress=False,
    )  # fmt: skip
    best = min(row["validation"] for row in metrics if "validation" in row)
    loaded = fewstep.load(tmp_path, make()[0])
    assert fewstep.evaluate(loaded, Sinusoids(), 20, seed=0, stream=1).mean[-1] == best
    assert equal(parameters(fewstep.load(tmp_path, make()[0], which="last")), parameters(learner))


def test_load_refuses_with_names(tmp_path: Path):
    learner, optimizer = make()
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=2, run=tmp_path, progress=False)
    with pytest.raises(FileNotFoundError, match=r"no best checkpoint.*validation=.*which=\"last\""):
        fewstep.load(tmp_path, learner)
    with pytest.raises(FileNotFoundError, match="no checkpoints"):
        fewstep.load(tmp_path / "nowhere", learner)
    wider = fewstep.maml(nn.Sequential(nn.Linear(1, 9), nn.Tanh(), nn.Linear(9, 1)), fewstep.mse, inner_lr=0.01)
    before = parameters(wider)
    with pytest.raises(ValueError, match="differs") as refused:
        fewstep.load(tmp_path, wider, which="last")
    assert "0.weight: [8, 1] in the run, [9, 1] in the learner" in str(refused.value)
    assert "missing in the run: model.2.weight" in str(refused.value)
    assert "missing in the learner: model.3.weight" in str(refused.value)
    assert equal(parameters(wider), before)


def test_a_training_that_fails_at_once_leaves_no_folder(tmp_path: Path):
    learner, optimizer = make()
    with pytest.raises(fewstep.TrainingDiverged):
        fewstep.fit(learner, TurnsNaN(0), optimizer, iterations=2, run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    learner, optimizer = make()
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=1, progress=False)
    assert signal.getsignal(signal.SIGINT) is before


class TurnsNaN:
    """Tasks that are fine until a given call."""

    def __init__(self, last_good: int) -> None:
        self.calls, self.last_good = 0, last_good

    def sample(self, n, generator=None):
        tasks = Sinusoids().sample(n, generator)
        self.calls += n > 2  # not the two draws of two tasks that check the source
        if self.calls <= self.last_good:
            return tasks
        return Task(tasks.support, Batch(tasks.query.x, tasks.query.y * float("nan")))


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path):
    learner, optimizer = make()
    said = r"at iteration 33.*last good checkpoint.*iteration 30.*lower"
    with pytest.raises(fewstep.TrainingDiverged, match=said) as e:
        fewstep.fit(learner, TurnsNaN(33), optimizer, iterations=100, run=tmp_path, log_every=20, checkpoint_every=10,
                    progress=False)  # fmt: skip
    assert e.value.iteration == 33
    saved = RunFolder(tmp_path).load()
    assert saved["iteration"] == 30
    assert all(torch.isfinite(value).all() for value in saved["learner"].values())


def test_best_checkpoint_is_the_best_validation(tmp_path: Path):
    learner, optimizer = make(lr=0.3)  # jumps about
    metrics = fewstep.fit(
        learner, Sinusoids(), optimizer, iterations=40, run=tmp_path, validation=Sinusoids(), validate_every=5,
        num_validation_tasks=20, progress=False,
    )  # fmt: skip
    validations = {row["iteration"]: row["validation"] for row in metrics if "validation" in row}
    assert list(validations) == [5, 10, 15, 20, 25, 30, 35, 40]
    best = RunFolder(tmp_path).load("best")
    assert validations[best["iteration"]] == min(validations.values())
    learner.load_state_dict(best["learner"])
    again = fewstep.evaluate(learner, Sinusoids(), 20, seed=0, stream=1)
    assert again.mean[-1] == min(validations.values())


def test_a_run_is_not_overwritten(tmp_path: Path):
    learner, optimizer = make()
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=2, run=tmp_path, progress=False)
    with pytest.raises(FileExistsError, match="already holds a run.*resume=True"):
        fewstep.fit(learner, Sinusoids(), optimizer, iterations=2, run=tmp_path, progress=False)


RESUMED_WITH = {
    "another optimiser": ({"kind": torch.optim.Adam}, ValueError, "optimizer: SGD in the run, Adam now"),
    "another network": ({"width": 7}, ValueError, r"differs from the one that was trained.*model.0.weight: \[8, 1\]"),
    "another seed": ({"seed": 5}, ValueError, "seed: 0 in the run, 5 now"),
}


@pytest.mark.parametrize("case", RESUMED_WITH)
def test_a_run_is_resumed_with_what_it_was_trained_with(tmp_path: Path, case: str):
    def train(iterations, width=8, kind=torch.optim.SGD, seed=0):
        learner = fewstep.maml(fewstep.models.MLP(1, [width], 1), fewstep.mse, 0.01)
        optimizer = kind(learner.parameters(), lr=1e-3)
        options = {"run": tmp_path / "r", "resume": True, "progress": False, "seed": seed}
        return fewstep.fit(learner, Sinusoids(), optimizer, iterations=iterations, **options)

    train(2)
    changed, error, message = RESUMED_WITH[case]
    with pytest.raises(error, match=message.replace(".*", r"[\s\S]*")):
        train(3, **changed)
    assert len(train(3)) == 2


def test_fit_names_what_was_expected(tmp_path: Path):
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)
    for number in (2.5, 1e1, "3"):
        with pytest.raises(TypeError, match="iterations must be a whole number"):
            fewstep.fit(learner, Sinusoids(), iterations=number)
    with pytest.raises(TypeError, match=r"a learner has meta_loss\(tasks\); got Linear.*fewstep\.maml"):
        fewstep.fit(nn.Linear(1, 1), Sinusoids(), iterations=2)
    with pytest.raises(TypeError, match=r"a learner has score.*got Linear.*fewstep\.maml"):
        fewstep.evaluate(nn.Linear(1, 1), Sinusoids())
    with pytest.raises(ValueError, match=r"resume=True needs the folder of the run"):
        fewstep.fit(learner, Sinusoids(), iterations=2, resume=True)
    with pytest.raises(ValueError, match='which must be "best" or "last"'):
        fewstep.load(tmp_path, learner, which="first")
    with pytest.raises(TypeError, match=r"the folder of a run, then a learner.*got MetaLearner and PosixPath"):
        fewstep.load(learner, tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError, match=r"run= is a folder.*file is a file"):
        fewstep.fit(learner, Sinusoids(), iterations=2, run=file)


def test_fit_refuses_what_is_no_task_source():
    learner, optimizer = make()
    with pytest.raises(TypeError, match=r"sample\(n, generator\); got list"):
        fewstep.fit(learner, [1, 2], optimizer, iterations=1)
    with pytest.raises(TypeError, match=r"validation= is a task source.*got list"):
        fewstep.fit(learner, Sinusoids(), optimizer, iterations=1, validation=[1, 2])


@pytest.mark.parametrize(
    "option",
    [
        {"metric": fewstep.mse}, {"validate_every": 5}, {"num_validation_tasks": 5}, {"validation_steps": 0},
        {"maximize": False},
    ],
    ids=lambda option: next(iter(option)),
)  # fmt: skip
def test_options_of_validation_need_validation_tasks(option: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(option))} without validation tasks; pass validation=SOURCE"):
        fewstep.fit(make()[0], Sinusoids(), iterations=1, **option)


@pytest.mark.parametrize(
    "name",
    ["iterations", "meta_batch", "log_every", "checkpoint_every", "validate_every", "num_validation_tasks"],
)
def test_fit_refuses_zero(name: str):
    learner, optimizer = make()
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        fewstep.fit(learner, Sinusoids(), optimizer, **{"iterations": 1, name: 0})


def test_checkpoint_round_trip(tmp_path: Path):
    state = {
        "tensor": torch.randn(3, 2)[:, 0],
        "scalar": torch.tensor(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
        7: [1, 2.5, None, True, "text", (1, [2])],
        "empty": {},
        "tied": (x := torch.randn(2)),
        "tied too": x,
        "float": 0.1 + 0.2,
    }
    save_checkpoint(tmp_path / "a.safetensors", state)
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        if isinstance(value, Tensor):
            assert torch.equal(loaded[key], value)
            assert loaded[key].dtype == value.dtype
        else:
            assert loaded[key] == value


def test_damaged_checkpoint_is_named(tmp_path: Path):
    file = tmp_path / "a.safetensors"
    save_checkpoint(file, {"x": torch.ones(1000)})
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged"):
        load_checkpoint(file)
    with pytest.raises(FileNotFoundError, match="No checkpoint"):
        load_checkpoint(tmp_path / "b.safetensors")


def test_interrupted_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "a.safetensors"
    save_checkpoint(file, {"x": 1})

    def power_cut(descriptor: int) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(OSError, match="power cut"):
        save_checkpoint(file, {"x": 2})
    assert load_checkpoint(file) == {"x": 1}


def test_a_cut_off_line_of_metrics_is_dropped(tmp_path: Path):
    folder = RunFolder(tmp_path)
    for i in (10, 20, 30):
        folder.log({"iteration": i, "loss": 1.0})
    with open(folder.metrics_file, "a") as file:
        file.write(json.dumps({"iteration": 40})[:-3])
    folder.forget_after(20)
    folder.log({"iteration": 30, "loss": 2.0})
    assert [row["iteration"] for row in folder.metrics()] == [10, 20, 30]
    assert folder.metrics()[-1]["loss"] == 2.0


class TakesTime:
    """Tasks that take so many seconds of a clock to draw."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def sample(self, n, generator=None):
        self.clock[0] += self.seconds
        return Sinusoids().sample(n, generator)


def test_training_time_is_without_validation_and_goes_on_when_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(sys.modules["fewstep.training.session"], "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for iterations in (4, 10):
        learner, optimizer = make()
        clock[0] += 5000.0  # between two sessions
        fewstep.fit(
            learner, TakesTime(clock, 1.0), optimizer, iterations=iterations, run=tmp_path, resume=True, progress=False,
            validation=TakesTime(clock, 100.0), validate_every=5, num_validation_tasks=10,
        )  # fmt: skip
    saved = RunFolder(tmp_path).load()
    assert (saved["seconds"], saved["validation_seconds"]) == (10.0, 300.0)  # validated after 4, 5 and 10


def test_fit_moves_tasks_to_the_learner():
    learner, _ = make()
    learner.double()
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=2, progress=False)
    assert next(learner.parameters()).dtype == torch.float64


def test_progress_without_a_terminal_is_lines(capsys: pytest.CaptureFixture[str]):
    learner, optimizer = make()
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=5, title="sines")
    shown = capsys.readouterr()
    assert "sines: 5/5" in shown.err
    assert "it/s" in shown.err
    assert "loss" in shown.err
    assert shown.out == ""


def test_the_first_iteration_which_may_compile_tells_nothing_of_the_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("fewstep.training.progress.time.monotonic", lambda: now[0])
    bar = Progress("run", 0, 101, show=True)
    for done, seconds in ((1, 3600.0), (11, 3620.0)):
        now[0] = seconds
        bar.update(done, lambda: 0.5)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "run: 1/101, loss 0.5000"
    assert second == "run: 11/101, 0.50 it/s, loss 0.5000, 3:00 left"
