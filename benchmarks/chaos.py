"""Ends a training at random moments, resumes it, and compares the end with an uninterrupted one, bit for bit.

    python benchmarks/chaos.py --kills 200 --seed 0

Each life of the training is a forked process, which SIGKILL, SIGTERM, SIGINT, SIGHUP or SIGUSR1 ends at a random
moment; the next one resumes it. A training that reaches its end is compared and another begins, until all kills are
done. After a signal that training answers, the checkpoint must be that of the iteration that its words name. The
network has dropout, the optimiser moments and a schedule, and validation chooses the best checkpoint.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn

import fewstep
from fewstep.tasks import Sinusoids
from fewstep.training import RunFolder, load_checkpoint

ITERATIONS = 600
ANSWERED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def train(folder: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
    learner = fewstep.maml(model, fewstep.mse, inner_lr=0.01)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    fewstep.fit(
        learner, Sinusoids(), optimizer, iterations=ITERATIONS, meta_batch=8, clip_norm=10.0,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ITERATIONS), validation=Sinusoids(),
        num_validation_tasks=300, validate_every=40, log_every=10, checkpoint_every=20, run=folder, resume=True,
        progress=False,
    )  # fmt: skip


def life(folder: Path, words: Path) -> int:
    """A process that trains, with its words in a file; returns its number."""
    child = os.fork()
    if child == 0:
        sys.stdout.flush()
        os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        code = 1
        try:
            train(folder)
            code = 0
        except KeyboardInterrupt as stopped:
            os.write(2, f"{stopped}\n".encode())
            code = 2
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return child


def ended(child: int, folder: Path, rows: int, after: float) -> bool:
    """Waits until a process has written so many rows of metrics, then some seconds; returns whether it has ended."""
    file = RunFolder(folder).metrics_file
    before = lines_of(file)
    while lines_of(file) < before + rows:  # resuming drops some
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    time.sleep(after)
    return bool(os.waitpid(child, os.WNOHANG)[0])


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def compare(folder: Path, whole: Path) -> list[str]:
    """What differs between two runs: checkpoints apart from times, validations, and the iterations of the other rows.

    A signal that training answers adds a row.
    """
    ours, theirs = RunFolder(folder), RunFolder(whole)
    different = []
    for which in ("last", "best"):
        a, b = ours.load(which), theirs.load(which)
        timed = {"seconds", "validation_seconds", "latest_validation_seconds", "starting_seconds", "paces"}
        different += [f"{which}: {key}" for key in a.keys() - timed if not same(a[key], b.get(key))]
    rows = [[row for row in run.metrics() if "validation" in row] for run in (ours, theirs)]
    if rows[0] != rows[1]:
        different.append("validations")
    steps = [[row["iteration"] for row in run.metrics() if "loss" in row] for run in (ours, theirs)]
    if len(set(steps[0])) != len(steps[0]) or not set(steps[1]) <= set(steps[0]):
        different.append("rows of metrics")
    return different


def check_words(folder: Path, words: str) -> str | None:
    """What is wrong after a signal that training answers."""
    if "training saves and stops" not in words:
        return None  # it came before training began
    said = re.search(r"Stopped after (\d+) of.*(saved|nothing to save)", words)
    if said is None:
        return f"its words are {words!r}"
    if said[2] == "saved" and RunFolder(folder).load()["iteration"] != int(said[1]):
        return f"it said {said[0]!r}, and saved iteration {RunFolder(folder).load()['iteration']}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0, help="end after this time, with fewer kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    kills: Counter[str] = Counter()
    wrong: list[str] = []
    ends = 0
    with tempfile.TemporaryDirectory() as place:
        whole, words = Path(place) / "whole", Path(place) / "words.txt"
        began = time.monotonic()
        os.waitpid(life(whole, words), 0)
        print(f"torch {torch.__version__}, {ITERATIONS} iterations", flush=True)
        folder = Path(place) / "run0"
        while kills.total() < options.kills and time.monotonic() < began + 60 * options.minutes:
            child = life(folder, words)
            if not ended(child, folder, draw.randrange(8), draw.uniform(0.01, 0.5)):
                number = draw.choice((signal.SIGKILL, signal.SIGKILL, *ANSWERED))
                os.kill(child, number)
                if draw.random() < 0.1 and number != signal.SIGKILL:  # a second one, as the impatient send
                    time.sleep(draw.uniform(0, 0.02))
                    os.kill(child, signal.SIGKILL)
                    number = signal.SIGKILL
                status = os.waitpid(child, 0)[1]
                kills[signal.Signals(number).name] += 1
                if number != signal.SIGKILL and os.WIFEXITED(status) and os.WEXITSTATUS(status):
                    complaint = check_words(folder, words.read_text())
                    wrong += [f"after {signal.Signals(number).name}: {complaint}"] if complaint else []
                continue
            if words.read_text():
                wrong.append(words.read_text())
            different = compare(folder, whole)
            wrong += [f"end {ends}: {', '.join(different)} differ"] if different else []
            left = [file.name for file in folder.rglob(".*.tmp")]
            wrong += [f"end {ends}: temporary files {left}"] if left else []
            load_checkpoint(RunFolder(folder).checkpoint_file("previous"))
            ends += 1
            print(f"{kills.total()} kills, {ends} ends reached, {len(wrong)} wrong", flush=True)
            folder = Path(place) / f"run{ends}"
    print("kills: " + ", ".join(f"{name} {number}" for name, number in sorted(kills.items())))
    print(f"ends reached: {ends}; all bit-identical: {not wrong}")
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
