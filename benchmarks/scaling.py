"""Weak scaling over the processes of one machine: as many tasks for each process, in one process and in several.

Every process has one thread and a core of its own. In each round the first process computes its tasks alone while the
others wait; then all of them compute together, each its own tasks, and exchange the gradient. The efficiency is the
ratio of these times. The share of the message is the time that the first process waits in it, for the other processes
as well as for the transfer. Messages of several sizes are timed by themselves.

    python benchmarks/scaling.py --processes 2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import console, print_header
from rich.table import Table
from torch import distributed

import fewstep as fs
from fewstep import allocator, parallel
from fewstep.parallel import Processes

Step = Callable[[], object]
MESSAGES = (1, 112_000, 1_000_000, 10_000_000)


def omniglot(tasks: int) -> Step:
    network = fs.models.Conv4.omniglot(5, norm="batch")
    learner = fs.maml(network, fs.cross_entropy, inner_lr=0.4)

    def batch() -> fs.Batch:
        labels = torch.arange(5).expand(tasks, -1)
        return fs.Batch(torch.rand(tasks, 5, 1, 28, 28), labels)

    meta_batch = fs.Task(batch(), batch())
    return lambda: learner.meta_gradient(meta_batch)


def sinusoid(tasks: int) -> Step:
    learner = fs.maml(fs.models.MLP(1, [40, 40], 1), fs.mse, inner_lr=0.01, compile=True)
    meta_batch = fs.tasks.Sinusoids(10).sample(tasks)
    return lambda: learner.meta_gradient(meta_batch)


def cheetah_of(tasks: int) -> tuple[Any, Any]:
    from fewstep import rl

    environment = rl.environments.HalfCheetahDirection(num_envs=200)
    rollouts = rl.Rollouts(environment, episodes=20, horizon=100)
    learner = rl.MetaPolicy(rl.GaussianPolicy(17, 6, [100, 100]), rollouts, rule=fs.GradientDescent(0.1))
    return learner, rl.EnvironmentTasks(environment).sample(tasks)


def cheetah_rollouts(tasks: int) -> Step:
    learner, meta_batch = cheetah_of(tasks)
    return lambda: learner.collect(meta_batch)


def cheetah_trpo(tasks: int) -> Step:
    from fewstep import rl

    learner, meta_batch = cheetah_of(tasks)
    optimizer = rl.TRPO(learner)
    return lambda: optimizer.meta_step(meta_batch)


WORKLOADS: dict[str, tuple[Callable[[int], Step], int]] = {
    "Omniglot Conv4, 16 tasks a process": (omniglot, 16),
    "Omniglot Conv4, 4 tasks a process": (omniglot, 4),
    "sinusoid MLP compiled, 25 tasks a process": (sinusoid, 25),
    "HalfCheetah rollouts, 5 tasks a process": (cheetah_rollouts, 5),
    "HalfCheetah TRPO, 5 tasks a process": (cheetah_trpo, 5),
}


def timed(step: Step, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - begin) / calls


def measure(rank: int, size: int, port: int, options: argparse.Namespace, told: Any) -> None:
    """Runs in every process; the first one tells the times."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    allocator.tune()
    waited = [0.0]
    plain = Processes.wait

    def counted(self: Processes, message: Callable[[], Any]) -> None:
        begin = time.perf_counter()
        plain(self, message)
        waited[0] += time.perf_counter() - begin

    Processes.wait = counted  # type: ignore[method-assign]
    found: dict[str, Any] = {"processes": size, "messages": {}, "workloads": {}}
    with parallel.together() as processes:
        for numbers in MESSAGES:
            flat = torch.zeros(numbers)
            for _ in range(3):
                distributed.all_reduce(flat)
            found["messages"][numbers] = timed(lambda flat=flat: distributed.all_reduce(flat), 10)  # type: ignore[misc]
        episodes = fs.tasks.Episodes(fs.datasets.glyphs("train"), ways=5, shots=1, queries=1)
        found["seconds_to_draw_a_task"] = timed(lambda: episodes.sample(64), 5) / 64
        for name, (make, tasks) in WORKLOADS.items():
            if options.only not in name:
                continue
            torch.manual_seed(0)
            lonely, common = make(tasks), make(tasks * size)
            with parallel.alone():
                lonely()
                took = timed(lonely, 2)
            common()
            calls = max(1, round(options.seconds / max(0.01, processes.of_first(lambda took=took: took))))  # type: ignore[misc]
            rows = []
            for _ in range(options.rounds):
                alone = 0.0
                if processes.is_first:
                    with parallel.alone():
                        alone = timed(lonely, calls)
                distributed.barrier()
                waited[0] = 0.0
                together = timed(common, calls)
                rows.append((alone, together, waited[0] / calls))
                distributed.barrier()
            found["workloads"][name] = {"tasks": tasks, "rows": rows}
    if rank == 0:
        told.send(found)
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="turns of one process and of all (default 7)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of a turn (default 3)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only workloads with this in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    started = [
        context.Process(target=measure, args=(rank, options.processes, port, options, there))
        for rank in range(options.processes)
    ]
    for process in started:
        process.start()
    there.close()
    found = here.recv()
    for process in started:
        process.join()
    torch.set_num_threads(1)
    print_header(f"Weak scaling, {options.processes} processes on one machine, gloo")
    table = Table("", "alone ms", "together ms", "efficiency", "in messages", title_justify="left")
    for name, workload in found["workloads"].items():
        rows = workload["rows"]
        alone, together, waiting = (statistics.median(values) for values in zip(*rows, strict=True))
        efficiency = statistics.median(a / b for a, b, _ in rows)
        table.add_row(
            name, f"{alone * 1e3:.2f}", f"{together * 1e3:.2f}", f"{efficiency:.1%}", f"{waiting / together:.1%}"
        )
    console.print(table)
    for numbers, seconds in found["messages"].items():
        console.print(f"sum of {int(numbers):,} float32 numbers: {seconds * 1e3:.2f} ms")
    console.print(f"drawing a task of Episodes: {found['seconds_to_draw_a_task'] * 1e3:.3f} ms")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
