"""Every way to take a meta-step of few-shot classification on a GPU, side by side in one run of a few minutes.

The three settings of benchmarks/classification.py: our meta-step recorded as a CUDA graph, recorded with the tasks of a
loop on streams of their own, and fused, exact and first order, with the factors of convolutions in TF32 and in full
single precision. Each setting is prepared (compiled) in a process of its own, all at the same time; then they measure
in turn, alone. Gradients are compared with the autograd loop's in float64 at a hundredth of the inner rate: at the
paper's, five steps from random weights are chaotic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from classification import SETTINGS, Setting, autograd_loop, operations
from measuring import in_turn

import fewstep as fs

ARITHMETIC = 52e12
"""Operations per second in full single precision: a product of two 8192 × 8192 matrices on an H100."""

EXACT = {
    "recorded": {"compile": "record"},
    "recorded, streams": {"compile": "record", "vectorize": False},
    "fused": {"compile": True},
}
FIRST_ORDER = {
    "recorded, first order": {"compile": "record", "adjoint": fs.FirstOrder()},
    "fused, first order": {"compile": True, "adjoint": fs.FirstOrder()},
}
PRECISIONS = {"TF32": True, "float32": False}


def use_precision(name: str) -> None:
    precision = "tf32" if PRECISIONS[name] else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision


def say(*words: object) -> None:
    print(*words, flush=True)


class Prepared:
    """The meta-steps of one setting, made and run once."""

    def __init__(self, title: str, variants: list[str]) -> None:
        self.title, self.setting = title, SETTINGS[title]
        torch.manual_seed(0)
        self.network = self.setting.network(self.setting.ways).cuda()
        self.tasks = self.setting.sample(self.setting.tasks, "cuda")
        self.calls: dict[str, Callable[[], object]] = {}
        self.seconds: dict[str, float] = {}
        wanted = {**EXACT, **FIRST_ORDER}
        for precision in PRECISIONS:
            use_precision(precision)
            for name, choices in wanted.items():
                full = f"{name}, {precision}"
                if any(part in full for part in variants):
                    self._try(full, lambda choices=choices: self._learner(choices))
        use_precision("TF32")

    def _learner(self, choices: dict[str, Any]) -> Callable[[], object]:
        setting = self.setting
        learner = fs.maml(self.network, fs.cross_entropy, setting.inner_lr, setting.steps, **choices)
        return lambda: learner.meta_gradient(self.tasks)

    def _try(self, name: str, make: Callable[[], Callable[[], object]]) -> None:
        start = time.perf_counter()
        try:
            call = make()
            call()
            torch.cuda.synchronize()
        except Exception as error:
            say(f"{self.title}: {name}: {type(error).__name__}: {str(error)[:300]}")
            traceback.print_exc(limit=-4)
            return
        self.calls[name] = call
        self.seconds[name] = time.perf_counter() - start
        say(f"  prepared {self.title[:18]}: {name} in {self.seconds[name]:.1f} s")

    def measure(self, rounds: int) -> dict[str, Any]:
        times = in_turn(self.calls, rounds, seconds=0.15)
        needed = operations(self.setting)
        say(f"{self.title}: arithmetic limit {needed / ARITHMETIC * 1e3:.2f} ms")
        for name, values in times.items():
            median = statistics.median(values)
            say(f"  {name:36s} {median * 1e3:8.3f} ms {median * ARITHMETIC / needed:6.1f} × the limit, "
                f"first call {self.seconds[name]:.1f} s")  # fmt: skip
        return {"times": times, "operations": needed, "first call": self.seconds}


def differences(setting: Setting, variants: list[str]) -> dict[str, float]:
    """Of each variant's gradient from the autograd loop's in float64, relative to the norm of that."""
    setting = replace(setting, inner_lr=setting.inner_lr / 100, tasks=min(setting.tasks, 4))
    torch.manual_seed(0)
    network, tasks = setting.network(setting.ways).cuda(), setting.sample(setting.tasks, "cuda")
    exact = torch.cat(
        [g.flatten() for g in autograd_loop(network.double(), tasks.to("cuda", torch.float64), setting)()]
    )
    found = {}
    for precision in PRECISIONS:
        use_precision(precision)
        for name, choices in EXACT.items():
            full = f"{name}, {precision}"
            if not any(part in full for part in variants):
                continue
            learner = fs.maml(network.float(), fs.cross_entropy, setting.inner_lr, setting.steps, **choices)
            learner.meta_gradient(tasks)
            ours = torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None]).double()
            found[full] = float((ours - exact).norm() / exact.norm())
    use_precision("TF32")
    return found


def show_kernels(name: str, calls: dict[str, Callable[[], object]], count: int = 30) -> None:
    """The kernels of one variant that take longest, and how many there are."""
    if name not in calls:
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            calls[name]()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.device_time_total)
    say(f"  {name}: {sum(event.count for event in events) / 5:.0f} kernels, "
        f"{sum(event.device_time_total for event in events) / 5e3:.3f} ms of kernels")  # fmt: skip
    for event in events[:count]:
        each = event.device_time_total / event.count
        say(f"    {event.device_time_total / 5e3:7.3f} ms = {event.count / 5:5.1f} × {each:6.1f} µs  {event.key[:110]}")


def work(title: str, options: argparse.Namespace) -> None:
    """In a process of its own: prepares, waits for its turn, and measures."""
    prepared = Prepared(title, options.variants)
    try:
        accuracy = differences(SETTINGS[title], options.accuracy)
    except Exception as error:
        say(f"{title}: differences: {error}")
        accuracy = {}
    say("READY")
    sys.stdin.readline()
    result = prepared.measure(options.rounds)
    for name, value in accuracy.items():
        say(f"  {name:36s} differs from float64 by {value:.1e}")
    for name in options.profile:
        show_kernels(name, prepared.calls)
    say("RESULT " + json.dumps({**result, "differences": accuracy}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each variant has its turn (default 5)")
    parser.add_argument("--variants", nargs="*", default=[""], help="only those whose names hold one of these")
    parser.add_argument(
        "--accuracy", nargs="*", default=["recorded,", "fused, TF32"], help="likewise, compared with float64"
    )
    parser.add_argument("--profile", nargs="*", default=[], help="variants whose kernels are shown")
    parser.add_argument("--settings", nargs="*", default=[""], help="only those whose titles hold one of these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--work", metavar="TITLE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if options.work:
        return work(options.work, options)
    say(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    results, processes = {}, {}
    for title in SETTINGS:
        if any(part in title for part in options.settings):
            arguments = [sys.executable, __file__, "--work", title, *sys.argv[1:]]
            processes[title] = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for process in processes.values():
        _until("READY", process)
    for title, process in processes.items():
        process.stdin.write("\n")
        process.stdin.flush()
        results[title] = json.loads(_until("RESULT", process) or "null")
        process.wait()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


def _until(word: str, process: subprocess.Popen[str]) -> str:
    """Passes on what a process says until it says a word, and gives the rest of that line."""
    for line in process.stdout or ():
        if line.startswith(word):
            return line.removeprefix(word).strip()
        print(line, end="", flush=True)
    return ""


if __name__ == "__main__":
    main()
