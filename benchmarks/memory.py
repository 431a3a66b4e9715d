"""Peak memory and time of the exact meta-gradient of a convolutional network, by adjoint, inner steps and allocator.

One 5-way 5-shot task of 84×84 images, 25 to adapt on and 25 to be judged on, and the paper's network of 4 blocks with
32 filters and batch statistics (MAML, section 5.2 and appendix A.1), as ``fewstep.models.Conv4``; the times at five
steps also for the same network put together from PyTorch's own layers. Every number of the first table comes from a
process of its own, and is the larger of two meta-gradients for memory and the smaller for time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import console, in_turn, print_header, print_times, speedup, use_one_core
from rich.table import Table
from torch import nn

import fewstep as fs
from fewstep import allocator

ALLOCATORS = ("default", "glibc", "tcmalloc")
STEPS = (1, 5, 20, 50)
ADJOINTS = {"unrolled": fs.Unrolled(), "recomputed": fs.Recomputed(), "first order": fs.FirstOrder()}


def plain_network(filters: int = 32, ways: int = 5) -> nn.Module:
    """The paper's network of PyTorch's own layers."""
    layers: list[nn.Module] = []
    for channels in (3, filters, filters, filters):
        layers += [
            nn.Conv2d(channels, filters, 3, padding="same"),
            nn.BatchNorm2d(filters, track_running_stats=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters * 25, ways))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "Conv4": lambda: fs.models.Conv4.mini_imagenet(ways=5, norm="batch"),
    "PyTorch's layers": plain_network,
}


def random_task(queries: int) -> fs.tasks.Task:
    def images(per_class: int) -> fs.tasks.Batch:
        labels = torch.arange(5).repeat(per_class)
        return fs.tasks.Batch(torch.rand(1, len(labels), 3, 84, 84), labels[None])

    return fs.tasks.Task(images(5), images(queries))


def meta_learner(adjoint: str, steps: int, network: str = "Conv4") -> fs.MetaLearner:
    return fs.maml(NETWORKS[network](), fs.cross_entropy, 0.01, steps, adjoint=ADJOINTS[adjoint], vectorize=False)


def memory_in_use(field: str) -> float:
    """MB of ``VmRSS``, resident now, or ``VmHWM``, the most there has been in this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(f"/proc/self/status has no {field}")


def measure(adjoint: str, steps: int, queries: int) -> dict[str, float]:
    """In a process of its own: what is resident before, the peak, and the seconds of a meta-gradient."""
    torch.manual_seed(0)
    tasks, learner = random_task(queries), meta_learner(adjoint, steps)
    before, seconds = memory_in_use("VmRSS"), []
    for _ in range(2):
        learner.zero_grad()
        start = time.perf_counter()
        learner.meta_loss(tasks).backward()
        seconds.append(time.perf_counter() - start)
    return {"before": before, "peak": memory_in_use("VmHWM"), "seconds": min(seconds)}


def compare_times(steps: int, queries: int, rounds: int) -> dict[str, list[float]]:
    """The adjoints and networks taking turns in one process."""
    torch.manual_seed(0)
    tasks = random_task(queries)
    learners = {f"{a}, {n}": meta_learner(a, steps, n) for n in NETWORKS for a in ADJOINTS}

    def meta_gradient(learner: fs.MetaLearner) -> None:
        learner.zero_grad()
        learner.meta_loss(tasks).backward()

    return in_turn({n: lambda v=v: meta_gradient(v) for n, v in learners.items()}, rounds, seconds=0)


def in_own_process(name: str, *arguments: Any) -> Any:
    """The result of a measurement, made by a process that runs on the named allocator."""
    command = [sys.executable, __file__, "--child", name, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def child(name: str, *arguments: str) -> None:
    allocator.restart_with(name)
    use_one_core()
    if arguments[0] in ADJOINTS:
        result: Any = measure(arguments[0], int(arguments[1]), int(arguments[2]))
    else:
        result = compare_times(*map(int, arguments))
    print(json.dumps(result))


def table_of(name: str, steps: list[int], queries: int, limit: float) -> dict[str, dict[int, dict[str, float]]]:
    """Measures and prints everything for one allocator."""
    table = Table("", "inner steps", "before MB", "peak MB", "growth MB", "peak / 1 step", "seconds")
    table.title, table.title_justify = f"allocator: {name}", "left"
    for column in table.columns[1:]:
        column.justify = "right"
    results: dict[str, dict[int, dict[str, float]]] = {}
    for adjoint in ADJOINTS:
        rows = results[adjoint] = {}
        for count in steps:
            if rows and adjoint == "unrolled":
                last = max(rows)
                expected = rows[last]["before"] + (rows[last]["peak"] - rows[last]["before"]) * count / last
                if last > 1 and expected > limit * 1024:
                    table.add_row(adjoint, str(count), "", f"≈ {expected:.0f}", "", "", "not run")
                    continue
            row = rows[count] = in_own_process(name, adjoint, count, queries)
            table.add_row(
                adjoint,
                str(count),
                f"{row['before']:.0f}",
                f"{row['peak']:.0f}",
                f"{row['peak'] - row['before']:.0f}",
                f"{row['peak'] / rows[min(rows)]['peak']:.2f}",
                f"{row['seconds']:.2f}",
            )
    console.print(table)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="inner steps (default 1 5 20 50)")
    parser.add_argument("--queries", type=int, default=5, help="query images per class (default 5; the paper has 15)")
    parser.add_argument("--allocators", nargs="+", choices=ALLOCATORS, default=ALLOCATORS, help="default: all")
    parser.add_argument("--rounds", type=int, default=7, help="turns in the comparison of times (default 7)")
    parser.add_argument(
        "--limit", type=float, default=12.0, help="GB that unrolling may be expected to need (default 12)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    use_one_core()
    print_header("Memory and time of the meta-gradient: 4 × 32 filters, 84×84 images, one 5-way 5-shot task")
    console.print(f"{5 * options.queries} query images; allocator='auto' means {allocator.choose()} here\n")
    results: dict[str, Any] = {}
    for name in options.allocators:
        results[name] = table_of(name, sorted(options.steps), options.queries, options.limit)
    for name in options.allocators:
        times = results[f"{name}, in turn"] = in_own_process(name, 5, options.queries, options.rounds)
        print_times(f"5 inner steps, in turn in one process, allocator: {name}", times, "unrolled, PyTorch's layers")
        for network in NETWORKS:
            ratio = 1 / speedup(times, f"recomputed, {network}", f"unrolled, {network}")
            console.print(f"{network}: recomputed takes {ratio:.2f} × the time of unrolled.")
        console.print()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
