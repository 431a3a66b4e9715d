"""Signals that arrive at a chosen moment end training with a checkpoint, without a further iteration."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import fewstep
from fewstep.tasks import Sinusoids
from fewstep.training import RunFolder
from fewstep.training.session import Session
from fewstep.training.validation import Validation

MOMENTS = ("iteration", "logging", "saving before validation", "validation", "saving after validation",
           "saving at the end")  # fmt: skip
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def trained(**options):
    torch.manual_seed(0)
    learner = fewstep.maml(nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1)), fewstep.mse, 0.01)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    common = {"iterations": 12, "meta_batch": 2, "log_every": 2, "checkpoint_every": 8, "validate_every": 4}
    metrics = fewstep.fit(
        learner, Sinusoids(), optimizer, validation=Sinusoids(), num_validation_tasks=101,
        progress=False, **{**common, **options},
    )  # fmt: skip
    return learner, metrics


def state(folder: Path) -> list[torch.Tensor]:
    saved = RunFolder(folder).load()
    return [saved["iteration"], saved["best"], *saved["learner"].values(), *saved["random"].values()]


class Calls:
    """Something that sends a signal when it is called for the given time."""

    def __init__(self, function, at: int, number: signal.Signals) -> None:
        self.function, self.left, self.number = function, at, number

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return self.function(*args, **kwargs)


def interrupted(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Sends a signal in the second iteration."""
    losses = Calls(Session.loss, 2, number)
    monkeypatch.setattr(Session, "loss", lambda self, function, tasks: losses(self, function, tasks))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("faults") / "whole"
    trained(run=folder)
    return folder


@pytest.mark.parametrize(
    ("moment", "number"), [*((moment, signal.SIGTERM) for moment in MOMENTS), *(("iteration", n) for n in SIGNALS)]
)
def test_a_signal_at_any_moment_saves_the_last_complete_iteration(
    moment: str, number: signal.Signals, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    iterations = []

    with monkeypatch.context() as patch:
        losses = Calls(Session.loss, 3 if moment == "iteration" else 0, number)

        def counted(self, function, tasks):
            iterations.append(self)
            return losses(self, function, tasks)

        patch.setattr(Session, "loss", counted)
        match moment:
            case "iteration":
                expected = 3
            case "logging":
                logs = Calls(RunFolder.log, 1, number)
                patch.setattr(RunFolder, "log", lambda self, row: logs(self, row))
                expected = 2
            case "validation":
                calls, expected = Calls(Validation.run, 1, number), 4
                patch.setattr(Validation, "run", lambda self, *args, **kwargs: calls(self, *args, **kwargs))
            case _:
                at = {"saving before validation": 1, "saving after validation": 3, "saving at the end": 5}[moment]
                expected = {1: 4, 3: 8, 5: 12}[at]
                saves = Calls(Session._save, at, number)
                patch.setattr(Session, "_save", lambda self, done: saves(self, done))
        with pytest.raises(fewstep.TrainingInterrupted, match=rf"Stopped after {expected} of 12.* saved") as stopped:
            trained(run=tmp_path / "run")
    assert stopped.value.signal == number
    assert len(iterations) == expected == RunFolder(tmp_path / "run").load()["iteration"]
    assert "stops after" in capfd.readouterr().err
    _, metrics = trained(run=tmp_path / "run", resume=True)
    assert all(map(equal, state(tmp_path / "run"), state(whole)))
    ours, theirs = (
        [(row["iteration"], row["validation"]) for row in rows if "validation" in row]
        for rows in (metrics, RunFolder(whole).metrics())
    )
    assert ours == theirs


def equal(a, b) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def twice(session, function, tasks):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Session, "loss", twice)
    with pytest.raises(KeyboardInterrupt) as stopped:
        trained(run=tmp_path / "run")
    assert not isinstance(stopped.value, fewstep.TrainingInterrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_hangup_stays_ignored(monkeypatch: pytest.MonkeyPatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        interrupted(monkeypatch, signal.SIGHUP)
        assert len(trained()[1]) > 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_saved_is_said_only_if_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(RunFolder, "save", full)
    interrupted(monkeypatch, signal.SIGTERM)
    with pytest.raises(OSError, match="No space left"):
        trained(run=tmp_path / "run")


def test_a_compiler_that_ctrl_c_ended_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def compiles(session, function, tasks):
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("g++ failed")

    monkeypatch.setattr(Session, "loss", compiles)

    with pytest.raises(fewstep.TrainingInterrupted, match="after 0 of 12 iterations. There was nothing to save"):
        trained(run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_goes_on_when_its_terminal_was_closed(monkeypatch: pytest.MonkeyPatch):
    class Closed:
        def write(self, text):
            raise OSError(5, "Input/output error")

        flush = write

        def isatty(self):
            return False

    monkeypatch.setattr("sys.stderr", Closed())
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)
    assert fewstep.fit(learner, Sinusoids(), iterations=3, log_every=1)[-1]["iteration"] == 3
