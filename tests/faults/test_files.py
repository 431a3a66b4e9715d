"""Damaged, missing and locked files of a run, and a full disk."""

import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import nn

import fewstep
from fewstep.datasets import cache
from fewstep.tasks import Sinusoids
from fewstep.training import RunFolder, load_checkpoint


def make():
    torch.manual_seed(0)
    return fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)


def trained(folder: Path, iterations: int = 20, **options):
    learner = make()
    fewstep.fit(learner, Sinusoids(), iterations=iterations, meta_batch=2, run=folder, resume=True, progress=False,
                **{"checkpoint_every": 4, "log_every": 2, **options})  # fmt: skip
    return [value.detach() for value in learner.parameters()]


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_every_flipped_byte_of_a_checkpoint_is_noticed(tmp_path: Path):
    trained(tmp_path, 4)
    file = RunFolder(tmp_path).checkpoint_file()
    content, good = file.read_bytes(), load_checkpoint(file)
    unnoticed = content.index(b'"checksum"'), content.index(b'"checksum"') + 10  # of the name alone
    header = int.from_bytes(content[:8], "little") + 8
    for place in [*range(0, header, 101), *range(header, len(content), 499), len(content) - 1]:
        if content[place : place + 1] == b" " or unnoticed[0] <= place < unnoticed[1]:
            continue
        flip(file, place)
        with pytest.raises(ValueError, match="damaged|structure is missing"):
            load_checkpoint(file)
        file.write_bytes(content)
    assert load_checkpoint(file)["iteration"] == good["iteration"]


def test_a_damaged_last_checkpoint_gives_way_to_the_previous_one(tmp_path: Path):
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "run", 12)
    folder = RunFolder(tmp_path / "run")
    last, previous = folder.checkpoint_file(), folder.checkpoint_file("previous")
    assert (load_checkpoint(previous)["iteration"], load_checkpoint(last)["iteration"]) == (8, 12)
    flip(last, -1)
    with pytest.warns(UserWarning, match=r"last\.safetensors is damaged.*Resuming from .*previous\.safetensors.* 8\."):
        resumed = trained(tmp_path / "run")
    assert all(map(torch.equal, resumed, whole))
    assert folder.metrics() == RunFolder(tmp_path / "whole").metrics()
    for file in (last, previous):
        flip(file, -1)
    with pytest.raises(ValueError, match=r"previous\.safetensors is damaged"):
        trained(tmp_path / "run", 24)


def test_a_missing_checkpoint_is_an_error_where_one_must_have_existed(tmp_path: Path):
    trained(tmp_path, 3)
    folder = RunFolder(tmp_path)
    folder.checkpoint_file().unlink()
    trained(tmp_path, 6)  # no checkpoint was due before
    folder.checkpoint_file().unlink()
    folder.checkpoint_file("previous").unlink()
    with pytest.raises(FileNotFoundError, match=r"metrics of 6 iterations but no checkpoint.*every 4"):
        trained(tmp_path, 8)


def test_a_damaged_line_of_metrics_is_named_and_the_lines_after_it_are_kept(tmp_path: Path):
    trained(tmp_path, 8)
    file = RunFolder(tmp_path).metrics_file
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([lines[0], b'{"iteration": 4, "lo\xff', b'"text"', *lines[2:]]))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: line [23] is damaged and is left out"):
        rows = RunFolder(tmp_path).metrics()
    assert [row["iteration"] for row in rows] == [2, 6, 8]


def test_a_run_folder_has_one_writer(tmp_path: Path):
    trained(tmp_path, 4)
    before = RunFolder(tmp_path).metrics()
    with FileLock(tmp_path / ".lock"):
        with pytest.raises(BlockingIOError, match=f"Another process is training in {tmp_path}.*another folder"):
            trained(tmp_path, 8)
        assert fewstep.load(tmp_path, make(), which="last") is not None  # reading needs no lock
    assert RunFolder(tmp_path).metrics() == before
    trained(tmp_path, 8)


def test_the_lock_of_a_dead_process_is_free_and_its_files_are_removed(tmp_path: Path):
    trained(tmp_path, 4)
    child = os.fork()
    if child == 0:
        with RunFolder(tmp_path).writing():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    left = [tmp_path / f".metrics.jsonl.{child}.tmp", tmp_path / "checkpoints" / f".last.safetensors.{child}.tmp"]
    for file in left:
        file.write_text("half")
    (tmp_path / ".results.json.1.tmp").write_text("written by an evaluation that may be running")
    trained(tmp_path, 8)
    assert not any(file.exists() for file in left)
    assert (tmp_path / ".results.json.1.tmp").exists()


def test_a_full_disk_keeps_the_checkpoints_and_is_named(tmp_path: Path):
    trained(tmp_path / "whole")
    trained(tmp_path / "run", 8)
    file = RunFolder(tmp_path / "run").checkpoint_file()
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # less than a checkpoint
        with pytest.raises(OSError, match=r"the file was not changed.*last\.safetensors"):
            trained(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert load_checkpoint(file)["iteration"] == 8
    assert not list(file.parent.glob(".*.tmp"))
    assert all(map(torch.equal, trained(tmp_path / "run"), trained(tmp_path / "whole", 20)))


def images():
    yield "a", np.arange(2 * 3 * 3 * 1, dtype=np.uint8).reshape(2, 3, 3, 1)


@pytest.mark.parametrize("file", ["images.bin", "index.json"])
def test_a_flipped_byte_of_the_cache_is_noticed(file: str, own_cache, monkeypatch: pytest.MonkeyPatch):
    good = cache.cached("toy", [], images).images.clone()
    (folder,) = cache.cache_folder().iterdir()
    content = (folder / file).read_bytes()
    flip(folder / file, content.index(b'"a"') + 1 if file == "index.json" else 5)
    monkeypatch.setattr(cache, "_verified", set())  # as in another process
    with pytest.warns(UserWarning, match="damaged: its checksum differs"):
        again = cache.cached("toy", [], images)
    assert torch.equal(again.images, good)
    assert again.classes == ["a"]


def test_a_cache_without_a_checksum_is_accepted(own_cache):
    cache.cached("toy", [], images)
    (folder,) = cache.cache_folder().iterdir()
    index = json.loads((folder / "index.json").read_text())
    del index["checksum"]
    (folder / "index.json").write_text(json.dumps(index))
    flip(folder / "images.bin", 0)
    assert cache.cached("toy", [], images).images.flatten()[0] == 1


def test_half_decoded_caches_of_dead_processes_are_removed(own_cache):
    folder = cache.writable_cache_folder()
    dead, alive, old = (folder / f"toy-{'0' * 16}.{name}" for name in ("deadbeef", "aliveabc", "oldolold"))
    for half in (dead, alive, old):
        half.mkdir()
    (dead / ".lock").touch()
    os.utime(old, (0, 0))
    with FileLock(alive / ".lock"):
        cache.cached("other", [], images)
        assert {half.exists() for half in (dead, old)} == {False}
        assert alive.exists()
