"""Every way to take a meta-step of few-shot classification on a GPU, side by side in one run of a few minutes.

The three settings of ``classification.py``: our meta-step eager, recorded as a CUDA graph, recorded with the tasks of a
loop on streams of their own, and fused, exact and first order, with the factors of convolutions in TF32 and in full
single precision; higher; and JAX. Every group of these is prepared (compiled) in a process of its own, all at the same
time; then they measure in turn, each alone on the GPU. Gradients are compared with the autograd loop's in float64 at a
hundredth of the inner rate: at the paper's, five steps from random weights are chaotic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from classification import autograd_loop, operations, with_fewstep, with_higher, with_jax
from classification_settings import SETTINGS, Setting
from measuring import in_turn

import fewstep as fs

ARITHMETIC = 52e12
"""Operations per second in single precision: a product of two 8192 × 8192 matrices on an H100, measured."""

FIRST_ORDER = {"adjoint": fs.FirstOrder()}
OURS: dict[str, dict[str, Any]] = {
    "eager": {},
    "recorded": {"compile": "record"},
    "recorded, streams": {"compile": "record", "vectorize": False},
    "fused": {"compile": True},
    "recorded, first order": {"compile": "record", **FIRST_ORDER},
    "fused, first order": {"compile": True, **FIRST_ORDER},
}
JAX: dict[str, dict[str, Any]] = {
    "JAX": {"precision": "highest"},
    "JAX, grouped convolutions": {"precision": "highest", "convolution": "direct"},
    "JAX, first order": {"precision": "highest", "first_order": True},
    "JAX, TF32": {"precision": "default"},
    "JAX, grouped convolutions, TF32": {"precision": "default", "convolution": "direct"},
}
GROUPS = "TF32", "float32", "first order, TF32", "JAX", "peers"


def use_precision(group: str) -> None:
    precision = "ieee" if group == "float32" else "tf32"
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision


def makers(group: str, setting: Setting, tasks: fs.tasks.Task) -> dict[str, Callable[[], Callable[[], object]]]:
    """The variants of a group, each to be made."""
    torch.manual_seed(0)
    network = setting.network(setting.ways).cuda()
    if group == "JAX":
        return {name: partial(with_jax, network, tasks, setting, **choices) for name, choices in JAX.items()}
    if group == "peers":
        loops = {"higher": with_higher, "autograd loop": autograd_loop}
        return {name: partial(make, network, tasks, setting) for name, make in loops.items()}
    wanted = {name: choices for name, choices in OURS.items() if ("first order" in name) == ("first order" in group)}
    precision = group.removeprefix("first order, ")
    return {f"{n}, {precision}": partial(with_fewstep, network, tasks, setting, **c) for n, c in wanted.items()}


def prepare(title: str, group: str, variants: list[str]) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """The meta-steps of a group, made and run once, and how many seconds that took."""
    calls, seconds = {}, {}
    setting = SETTINGS[title]
    for name, make in makers(group, setting, setting.sample(setting.tasks, "cuda")).items():
        if not any(part in name for part in variants):
            continue
        start = time.perf_counter()
        try:
            calls[name] = make()
            calls[name]()
            torch.cuda.synchronize()
            seconds[name] = time.perf_counter() - start
            say(f"prepared {title}: {name} in {seconds[name]:.1f} s")
        except Exception as error:
            calls.pop(name, None)
            say(f"{title}: {name}: {type(error).__name__}: {str(error)[:300]}")
    return calls, seconds


def difference(setting: Setting, choices: dict[str, Any]) -> float:
    """Of our gradient from the autograd loop's in float64, relative to the norm of that."""
    setting = replace(setting, inner_lr=setting.inner_lr / 100, tasks=min(setting.tasks, 4))
    torch.manual_seed(0)
    network, tasks = setting.network(setting.ways).cuda(), setting.sample(setting.tasks, "cuda")
    exact = autograd_loop(network.double(), tasks.to("cuda", torch.float64), setting)()
    ours = with_fewstep(network.float(), tasks, setting, **choices)()
    norms = [torch.cat([g.double().flatten() for g in found]) for found in (exact, ours)]
    return float((norms[1] - norms[0]).norm() / norms[0].norm())


def show_kernels(name: str, call: Callable[[], object], count: int = 20) -> None:
    """The kernels of one variant that take longest, and how many there are."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            call()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.device_time_total)
    total = sum(event.device_time_total for event in events) / 5e3
    say(f"  {name}: {sum(event.count for event in events) / 5:.0f} kernels, {total:.3f} ms")
    for event in events[:count]:
        each = event.device_time_total / event.count
        say(f"    {event.device_time_total / 5e3:7.3f} ms = {event.count / 5:5.1f} × {each:6.1f} µs  {event.key[:90]}")


def work(title: str, group: str, options: argparse.Namespace) -> None:
    """In a process of its own: prepares, waits for its turn, and measures."""
    use_precision(group)
    calls, seconds = prepare(title, group, options.variants)
    differences = {}
    if group in ("TF32", "float32") and options.differences:
        differences[f"recorded, {group}"] = difference(SETTINGS[title], OURS["recorded"])
    say("READY")
    sys.stdin.readline()
    times = in_turn(calls, options.rounds, seconds=0.15)
    needed = operations(SETTINGS[title])
    say(f"  arithmetic limit {needed / ARITHMETIC * 1e3:.2f} ms")
    for name, values in times.items():
        median = statistics.median(values)
        limits = f"{median * ARITHMETIC / needed:6.1f} × the limit"
        say(f"  {name:36s} {median * 1e3:8.3f} ms {limits}, first call {seconds[name]:.1f} s")
    for name, value in differences.items():
        say(f"  {name:36s} differs from float64 by {value:.1e}")
    for name, call in calls.items():
        if name in options.profile:
            show_kernels(name, call)
    say("RESULT " + json.dumps({"times": times, "first calls": seconds, "differences": differences}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each variant has its turn (default 5)")
    parser.add_argument("--variants", nargs="*", default=[""], help="only those whose names hold one of these")
    parser.add_argument("--jobs", nargs="*", default=["*"], help='only these, such as "mini*: TF32" (default all)')
    parser.add_argument("--deadline", type=float, default=360, help="seconds in which a group has to be prepared")
    parser.add_argument("--profile", nargs="*", default=[], help="variants whose kernels are shown")
    parser.add_argument("--differences", action="store_true", help="compare with float64")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--work", nargs=2, metavar=("TITLE", "GROUP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if options.work:
        return work(*options.work, options)
    say(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    deadline = time.monotonic() + options.deadline
    names = [(title, group) for group in GROUPS for title in SETTINGS]
    chosen = [job for job in names if any(fnmatchcase(": ".join(job), pattern) for pattern in options.jobs)]
    jobs = [Job(title, group) for title, group in chosen]
    ready = [job for job in jobs if job.said("READY", deadline - time.monotonic()) is not None]
    say(f"measuring {len(ready)} of {len(jobs)} groups")
    results: dict[str, dict[str, Any]] = {title: {} for title in SETTINGS}
    for job in jobs:
        if job not in ready:
            job.process.kill()
            say(f"{job.title}: {job.group}: not prepared in {options.deadline:.0f} s")
    for job in ready:
        say(f"{job.title}: {job.group}")
        job.go_on()
        results[job.title][job.group] = json.loads(job.said("RESULT", 120) or "null")
        if options.json:
            options.json.write_text(json.dumps(results, indent=2))


class Job:
    """A group of a setting in a process of its own, whose words are passed on."""

    def __init__(self, title: str, group: str) -> None:
        self.title, self.group = title, group
        arguments = [sys.executable, __file__, "--work", title, group, *sys.argv[1:]]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._words = dict.fromkeys(("READY", "RESULT"), "")
        self._events = {word: threading.Event() for word in self._words}
        threading.Thread(target=self._listen, daemon=True).start()

    def said(self, word: str, seconds: float) -> str | None:
        """What came after a word, as soon as that has been said; ``None`` if it was not in time."""
        return self._words[word] if self._events[word].wait(max(0.0, seconds)) else None

    def go_on(self) -> None:
        """Lets the process measure."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            word, _, rest = line.strip().partition(" ")
            if word in self._words:
                self._words[word] = rest
                self._events[word].set()
            else:
                print(line, end="", flush=True)


def say(words: str) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    main()
