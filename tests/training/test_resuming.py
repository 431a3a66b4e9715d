"""A run is resumed with the settings it was trained with, or with those that are said to change."""

from pathlib import Path

import pytest
import torch
from torch import nn

import fewstep
from fewstep.cli.entry import main
from fewstep.tasks import Sinusoids
from fewstep.training import RunFolder, save_checkpoint

Cosine = torch.optim.lr_scheduler.CosineAnnealingLR


def train(
    folder: Path | None, iterations: int = 6, lr=1e-2, kind=torch.optim.Adam, schedule=None, settings=None, **options
):
    torch.manual_seed(0)
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)
    optimizer = kind(learner.parameters(), lr, **(settings or {}))
    scheduler = None if schedule is None else schedule(optimizer)
    resuming = {} if folder is None else {"run": folder, "resume": True}
    fewstep.fit(learner, Sinusoids(), optimizer, iterations=iterations, scheduler=scheduler, progress=False,
                **{"meta_batch": 3, **resuming, **options})  # fmt: skip
    return [value.detach().clone() for value in learner.parameters()], optimizer


OTHERS = {
    "lr": ({"lr": 1e-3}, "lr: 0.01 in the run, 0.001 now"),
    "seed": ({"seed": 3}, "seed: 0 in the run, 3 now"),
    "meta_batch": ({"meta_batch": 4}, "meta_batch: 3 in the run, 4 now"),
    "clip_norm": ({"clip_norm": 10.0}, "clip_norm: none in the run, 10.0 now"),
    "clip_value": ({"clip_value": 1.0}, "clip_value: none in the run, 1.0 now"),
    "betas": ({"settings": {"betas": (0.5, 0.9)}}, r"betas: \[0.9, 0.999\] in the run, \[0.5, 0.9\] now"),
    "optimizer": ({"kind": torch.optim.SGD}, "optimizer: Adam in the run, SGD now"),
    "scheduler": ({"schedule": lambda of: Cosine(of, 9)}, "scheduler: none in the run, CosineAnnealingLR now"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_setting_is_refused_or_taken_over(name: str, tmp_path: Path):
    train(tmp_path, 3)
    options, words = OTHERS[name]
    with pytest.raises(ValueError, match=rf'other settings:\n  {words}\n.*override=\["{name}"\]'):
        train(tmp_path, 6, **options)
    train(tmp_path, 6, override=[name], **options)
    train(tmp_path, 8, **options)  # from now on, the new one is the run's
    with pytest.raises(ValueError, match="other settings"):
        train(tmp_path, 9)


def test_taken_over_is_as_if_the_rest_had_been_trained_with_it(tmp_path: Path):
    train(tmp_path, 3)
    changed, _ = train(tmp_path, 6, lr=1e-3, override=["lr"])
    torch.manual_seed(0)
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    for i in range(6):
        optimizer.param_groups[0]["lr"] = 1e-2 if i < 3 else 1e-3
        optimizer.zero_grad()
        learner.meta_loss(Sinusoids().sample(3, fewstep.tasks.generator(0, i))).backward()
        optimizer.step()
    assert all(map(torch.equal, changed, learner.parameters()))


def test_a_schedule_goes_on_with_the_new_rate_as_from_the_start(tmp_path: Path):
    schedule = {"schedule": lambda of: Cosine(of, 9, eta_min=1e-5)}
    train(tmp_path, 4, **schedule)
    _, optimizer = train(tmp_path, 6, lr=2e-3, override=["lr"], **schedule)
    _, alone = train(None, 6, lr=2e-3, **schedule)
    assert optimizer.param_groups[0]["lr"] == alone.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=r"scheduler\.T_max: 9 in the run, 20 now"):
        train(tmp_path, 7, lr=2e-3, schedule=lambda of: Cosine(of, 20, eta_min=1e-5))


def test_the_same_optimizer_goes_on_after_its_schedule_changed_it(tmp_path: Path):
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)
    optimizer = torch.optim.SGD(learner.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=20)
    for iterations in (4, 8):
        fewstep.fit(learner, Sinusoids(), optimizer, iterations=iterations, scheduler=scheduler, run=tmp_path,
                    resume=True, progress=False)  # fmt: skip
    with pytest.raises(ValueError, match="needs a new optimiser and a new scheduler"):
        fewstep.fit(learner, Sinusoids(), optimizer, iterations=9, scheduler=scheduler, run=tmp_path, resume=True,
                    progress=False, clip_norm=1.0, seed=4, override=["seed", "clip_norm", "lr"],
                    **changed_rate(optimizer))  # fmt: skip


def changed_rate(optimizer):
    optimizer.param_groups[0]["initial_lr"] = 0.5
    return {}


def test_override_is_checked(tmp_path: Path):
    train(tmp_path, 2)
    with pytest.raises(ValueError, match=r"override= has no setting rate; it has amsgrad, .*lr"):
        train(tmp_path, 3, override=["rate"])
    with pytest.raises(TypeError, match="a list of names, such as"):
        train(tmp_path, 3, override="lr")
    with pytest.raises(ValueError, match="pass resume=True"):
        train(None, 3, override=["lr"])


def test_checkpoints_of_older_versions_are_resumed_and_their_rate_is_checked(tmp_path: Path):
    whole, _ = train(None, 6)
    train(tmp_path, 3)
    folder = RunFolder(tmp_path)
    old = {
        name: value for name, value in folder.load().items() if name not in ("settings", "vmaps", "validation_is_due")
    }
    save_checkpoint(folder.checkpoint_file(), old)
    with pytest.raises(ValueError, match="lr: 0.01 in the run, 0.1 now"):
        train(tmp_path, 6, lr=0.1)
    with pytest.raises(ValueError, match="seed: 0 in the run, 1 now"):
        train(tmp_path, 6, seed=1)
    resumed, _ = train(tmp_path, 6)
    assert all(map(torch.equal, resumed, whole))


def test_vmap_or_loop_is_part_of_the_checkpoint(tmp_path: Path):
    train(tmp_path, 2)
    folder = RunFolder(tmp_path)
    state = folder.load()
    assert list(state["vmaps"].values()) == [True]
    state["vmaps"] = dict.fromkeys(state["vmaps"], False)
    save_checkpoint(folder.checkpoint_file(), state)
    train(tmp_path, 3)
    assert list(folder.load()["vmaps"].values()) == [False]


def test_a_command_resumes_with_other_settings_and_the_results_say_so(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [
        "--no-compile",
        "--meta-batch",
        "2",
        "--validation-tasks",
        "2",
        "--log-every",
        "2",
        "--checkpoint-every",
        "2",
    ]
    begin = ["train", "sinusoid-5shot-maml", "--iterations", "6", *small, "--allocator", "default", "--run", "r"]
    source = fewstep.tasks.Sinusoids.sample

    def interrupted(self, n, generator=None):
        if RunFolder("r").has_checkpoint():
            raise RuntimeError("stopped")
        return source(self, n, generator)

    with monkeypatch.context() as patch:
        patch.setattr(fewstep.tasks.Sinusoids, "sample", interrupted)
        with pytest.raises(SystemExit):
            main(begin)
    resume = ["train", "--resume", "r", "--allocator", "default"]
    main([*resume, "--outer-lr", "1e-4", "--clip-norm", "10"])
    main(["evaluate", "r", "--tasks", "3", "--allocator", "default"])
    folder = RunFolder("r")
    changes = [{"iteration": 2, "outer_lr": [0.001, 0.0001], "clip_norm": [None, 10.0]}]
    assert folder.read_json(folder.config_file)["changes"] == changes
    assert folder.read_json(folder.path / "results-tasks-3.json")["changes"] == changes
    settings = folder.load()["settings"]
    assert (settings["lr"], settings["clip_norm"]) == (1e-4, 10.0)
    main(resume)  # as it is now
    with pytest.raises(SystemExit):
        main([*resume, "--outer-lr", "-1"])
    assert "expected a number greater than 0" in capsys.readouterr().err
