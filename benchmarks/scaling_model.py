"""A model of the time of a meta-step over many processes, from what ``scaling.py`` measured on two.

A meta-step of P processes with t tasks each takes

    drawing + computing + message  =  d·P·t + c·t + 2·(P − 1)·a + 2·(P − 1) / P · 4·n / b

since every process draws the whole meta-batch, computes its own tasks, and sums n float32 numbers in a ring of latency
a and bandwidth b. Times of computing differ between processes when tasks do; ``--spread`` adds the expected maximum of
P normal variables with this relative standard deviation.

    python benchmarks/scaling_model.py benchmarks/results/scaling_cpu.json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from measuring import console
from rich.table import Table

PROCESSES = (2, 8, 64, 512)
PARAMETERS = (100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)


def message(processes: int, parameters: float, latency: float, bandwidth: float) -> float:
    """Seconds of a sum in a ring."""
    steps = 2 * (processes - 1)
    return steps * latency + steps / processes * 4 * parameters / bandwidth


def slowest(processes: int, spread: float) -> float:
    """How much longer than on average the slowest process computes."""
    return 1 + spread * math.sqrt(2 * math.log(processes))


def fitted(found: dict[str, Any]) -> tuple[float, float]:
    """Latency and bandwidth of this machine, from the smallest and the largest message of two processes."""
    times = {int(numbers): seconds for numbers, seconds in found["messages"].items()}
    latency = times[min(times)] / 2
    return latency, 4 * max(times) / (times[max(times)] - times[min(times)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="the JSON file of scaling.py")
    parser.add_argument("--latency", type=float, default=2e-5, help="seconds of the cluster's network (default 20 µs)")
    parser.add_argument(
        "--bandwidth", type=float, default=1.25e10, help="bytes a second (default 12.5 GB/s, 100 Gbit/s)"
    )
    parser.add_argument("--spread", type=float, default=0.05, help="relative spread of the times of computing (0.05)")
    options = parser.parse_args()
    found = json.loads(options.measured.read_text())
    here, draw = fitted(found), found["seconds_to_draw_a_task"]
    console.print(
        f"this machine: latency {here[0] * 1e6:.0f} µs, {here[1] / 1e9:.2f} GB/s; drawing a task {draw * 1e6:.0f} µs"
    )

    for name, workload in found["workloads"].items():
        alone, together, _ = (statistics.median(values) for values in zip(*workload["rows"], strict=True))
        if "Omniglot" in name:  # 112 thousand parameters; the tasks were drawn before
            expected = alone + message(2, 112_000, *here)
            console.print(f"{name}: the model {expected * 1e3:.1f} ms, measured {together * 1e3:.1f} ms")

    tasks = 16
    omniglot = found["workloads"]["Omniglot Conv4, 16 tasks a process"]["rows"]
    compute = statistics.median(alone for alone, _, _ in omniglot)
    for title, seconds in ((f"as computed here, {compute * 1e3:.0f} ms", compute), ("on a GPU in 2.5 ms", 2.5e-3)):
        table = Table(
            "processes",
            *(f"{n:,} parameters" for n in PARAMETERS),
            title=f"Efficiency, {tasks} tasks a process {title}",
        )
        for processes in PROCESSES:
            row = []
            for parameters in PARAMETERS:
                sent = message(processes, parameters, options.latency, options.bandwidth)
                total = draw * processes * tasks + seconds * slowest(processes, options.spread) + sent
                row.append(f"{(draw * tasks + seconds) / total:.0%}")
            table.add_row(str(processes), *row)
        console.print(table)
    console.print("Sent per process and meta-step: 8·n·(P − 1)/P bytes, such as 0.8 MB for 100,000 parameters.")


if __name__ == "__main__":
    main()
