"""What a command says when it fails: what was read, what was expected, the fix; and a bug with where to report it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fewstep.cli import errors, main
from fewstep.cli.errors import described, is_deliberate
from fewstep.cli.tables import print_table
from fewstep.experiments import provenance
from fewstep.experiments.catalogue import find
from fewstep.experiments.provenance import git_commit
from fewstep.experiments.runs import Run
from fewstep.experiments.training import Training
from fewstep.report import write_report


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--allocator", "default"])
    assert ended.value.code
    return capsys.readouterr().err


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder with a run that was not trained; its config.json."""
    monkeypatch.chdir(tmp_path)
    Run.create("sinusoid-5shot-maml", find("sinusoid-5shot-maml").config, Training(compile=False), "a")
    content: dict[str, Any] = json.loads(Path("a/config.json").read_text())
    return content


CHANGED: list[tuple[str, Any, str]] = [
    ("experiment", None, "expected a text under 'experiment'; got None"),
    ("experiment", "../../etc", "of the experiment '../../etc', which this version of fewstep does not have"),
    ("experiment", "\x1b[31mred", r"of the experiment '\x1b[31mred'"),
    ("training", [1], "expected options under 'training'"),
    ("training.seed", "a", "seed: expected a whole number; got 'a'"),
    ("training.seed", -1, "seed: expected a number of at least 0; got -1"),
    ("training.clip_norm", "big", "clip_norm: expected a number or nothing; got 'big'"),
    ("training.dtype", "float8", "dtype: expected float32 or float64; got 'float8'"),
    ("training.log_every", True, "log_every: expected a whole number; got True"),
    ("training.bogus", 1, "there is no training option bogus"),
    ("training.device", "../x", "there is no device '../x' on this machine"),
    ("config", None, "expected settings under 'config'"),
    ("config.inner_lr", "x", "inner_lr: expected a number; got 'x'"),
    ("config.shots", 0, "shots: expected a number of at least 1; got 0"),
    ("config.method", "zzz", "has no method 'zzz'"),
    ("config.meta_batch", 1e9, "meta_batch: expected a whole number"),
    ("changes", 3, "expected a list of objects under 'changes'"),
]


@pytest.mark.parametrize(("place", "value", "says"), CHANGED, ids=[f"{place}={value!r}" for place, value, _ in CHANGED])
def test_every_name_and_value_of_config_json_is_checked(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str], place: str, value: Any, says: str
):
    group, _, name = place.partition(".")
    if name:
        run[group][name] = value
    else:
        run[group] = value
    Path("a/config.json").write_text(json.dumps(run))
    said = fails(capsys, "train", "--resume", "a")
    assert says in said
    assert "bug" not in said
    assert "\x1b" not in said
    assert "a/config.json" in said or "device" in place


def test_json_of_strangers_is_named(run: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    for content in ("[" * 100_000, "{", "[]", "\x00"):
        Path("a/config.json").write_text(content)
        assert "a/config.json is damaged" in fails(capsys, "train", "--resume", "a")
    Path("results").mkdir()
    for content, says in (("{}", "expected a text under 'experiment'; got None"), ("[" * 100_000, "is damaged")):
        Path("results/sinusoid-5shot-maml-seed0.json").write_text(content)
        said = fails(capsys, "reproduce", "sinusoid", "--no-train", "--results", "results")
        assert "results/sinusoid-5shot-maml-seed0.json" in said
        assert says in said


def broken(kind: type[Exception], *arguments: Any) -> Any:
    def command(*_: Any, **__: Any) -> None:
        raise kind(*arguments)

    return command


def test_a_bug_is_reported_as_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fewstep.cli.list.parse", broken(KeyError, "lr"))
    said = fails(capsys, "list")
    assert "unexpected KeyError: 'lr' (test_errors_of_commands.py, line" in said
    assert "This is a bug of fewstep. Please report it" in said
    assert "FEWSTEP_TRACEBACK=1" in said
    monkeypatch.setattr(errors, "metadata", lambda _: {"x": None} and type("M", (), {"get_all": ADDRESSES.get})())
    assert "report it at https://example.invalid/issues, with" in fails(capsys, "list")
    monkeypatch.setenv("FEWSTEP_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["list", "--allocator", "default"])


ADDRESSES = {"Project-URL": ["Homepage, https://example.invalid", "Issues, https://example.invalid/issues"]}


def test_errors_that_are_raised_on_purpose_are_not_bugs():
    with pytest.raises(KeyError) as caught:
        find("sinusoid-5shot-mmal")
    assert is_deliberate(caught.value)
    assert described(caught.value).startswith("fewstep: There is no experiment 'sinusoid-5shot-mmal'. Did you mean")
    with pytest.raises(TypeError) as raw:
        Training(**{"bogus": 1})
    assert not is_deliberate(raw.value)


def test_errors_of_the_system_name_the_file_and_the_fix(tmp_path: Path):
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "none" / "file").write_text("")
    assert described(caught.value) == f"fewstep: {tmp_path}/none/file: No such file or directory. Check the name."
    assert "The disk is full: free some space" in described(OSError(28, "No space left on device", "runs/a"))
    assert "the memory is not enough" in described(MemoryError())
    missing = ModuleNotFoundError("No module named 'x'", name="x.y")
    assert "needs the package x, which is not installed: pip install x" in described(missing)


def test_names_from_files_are_text_on_the_terminal(capsys: pytest.CaptureFixture[str]):
    print_table("a\x1b[2J", ["b\x07"], [["[red]c[/red]\x1b[31m"], ["d\u202ee"]])
    shown = capsys.readouterr().out
    assert r"a\x1b[2J" in shown
    assert r"b\x07" in shown
    assert r"[red]c[/red]\x1b[31m" in shown
    assert r"d\u202ee" in shown
    assert "\x1b" not in shown


def test_a_report_of_hostile_names_is_written(tmp_path: Path):
    (tmp_path / "fit.json").write_text(json.dumps({"metric": "$\\frac$\x1b[31m\x00", "<b>\x07": "\u202e"}))
    rows = [{"iteration": n, "loss": 1.0, "validation": 1.0, "validation_ci95": 0.1} for n in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report([tmp_path]).read_text()
    assert not {"\x1b", "\x00", "\x07", "\u202e"} & set(page)
    assert r"$\frac$\x1b[31m\x00" in page


# The commit


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of a package of this name; the package's folder."""
    package = tmp_path / "src" / "fewstep"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "fewstep"\n')
    (tmp_path / ".gitattributes").write_text("*.py filter=hostile\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "First")
    return package


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_runs_nothing_of_the_repository(checkout: Path, tmp_path: Path):
    commit = git(tmp_path, "rev-parse", "HEAD")
    hook, ran = tmp_path / "hook.sh", tmp_path / "ran"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    hook.chmod(0o755)
    for name in ("core.fsmonitor", "filter.hostile.clean", "filter.hostile.process", "core.pager"):
        git(tmp_path, "config", name, str(hook))
    (tmp_path / ".git" / "hooks" / "post-index-change").write_bytes(hook.read_bytes())
    (tmp_path / ".git" / "hooks" / "post-index-change").chmod(0o755)
    os.utime(checkout / "a.py", (0, 0))
    assert git_commit(checkout) == commit
    (checkout / "a.py").write_text("2\n")
    assert git_commit(checkout) == f"{commit}-dirty"
    assert not ran.exists()


def test_the_commit_is_the_checkouts_or_none(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    installed = tmp_path / ".venv" / "lib" / "fewstep"
    installed.mkdir(parents=True)
    assert git_commit(installed) is None
    (checkout / "a.py").write_text("2\n")
    git(tmp_path, "add", "-A")  # changed, but not committed
    assert str(git_commit(checkout)).endswith("-dirty")
    monkeypatch.setattr(provenance.subprocess, "run", broken(FileNotFoundError, "git"))
    assert git_commit(checkout) is None
    monkeypatch.undo()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert git_commit(checkout) is None
