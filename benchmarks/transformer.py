"""Memory and time of the meta-gradient of a language model's learning rates, by adjoint and number of inner steps.

A decoder-only transformer with rotary positions takes some inner steps of gradient descent or Adam on a batch of random
tokens. The meta-parameters are one learning rate for each tensor and a weight for each example of the support batch.
The initial parameters get no gradient. The straightforward way keeps the graph of every step (``create_graph=True``).
``fewstep.Recomputed`` keeps the parameters after each step and works out products with a step's Hessian on the way
back, by a second backward pass or by forward over reverse, the mixed mode of Kemaev et al. (2025, arXiv 2505.00793).
Reverse mode is measured with and without checkpoints of the activations per block. All are first checked against each
other in float64.

Memory is what a meta-gradient takes at its peak beyond parameters and data: of the GPU's allocator, or, on a CPU, of a
process of its own; JAX's is what XLA says of its program. JAX's gradients are checked on CPUs only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measuring import console
from memory import memory_in_use
from rich.table import Table
from torch import Tensor
from transformer_model import Params, loss_of

import fewstep as fs
from fewstep import allocator

SIZES = {"1M": (4, 128), "10M": (6, 384), "50M": (12, 576), "200M": (16, 1024), "500M": (20, 1408)}
"""Blocks and width. The head is tied to the embedding of 256 tokens (bytes)."""

VOCABULARY = 256


@dataclass(frozen=True)
class Setting:
    """What is measured, apart from the variant."""

    size: str
    sequence: int
    batch: int
    steps: int
    optimizer: str
    device: str
    dtype: str = "float32"

    @property
    def rate(self) -> float:
        return 1e-2 if self.optimizer == "sgd" else 1e-3

    def parameters(self) -> Params:
        blocks, width = SIZES[self.size]
        shapes: dict[str, tuple[int, ...]] = {"embedding": (VOCABULARY, width), "norm": (width,)}
        for i in range(blocks):
            shapes |= {f"{i}.norm1": (width,), f"{i}.qkv": (3 * width, width), f"{i}.out": (width, width)}
            shapes |= {f"{i}.norm2": (width,), f"{i}.up": (4 * width, width), f"{i}.down": (width, 4 * width)}
        generator = torch.Generator().manual_seed(0)
        return {
            name: torch.ones(shape, **self._options()) if len(shape) == 1
            else torch.randn(shape, generator=generator).mul(0.02).to(**self._options())
            for name, shape in shapes.items()
        }  # fmt: skip

    def data(self) -> tuple[Any, Any]:
        """Support tokens and their weights, query tokens and theirs."""
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(VOCABULARY, (2, self.batch, self.sequence + 1), generator=generator).to(self.device)
        weights = torch.ones(self.batch, **self._options())
        return (tokens[0], weights.clone().requires_grad_()), (tokens[1], weights)

    def _options(self) -> dict[str, Any]:
        return {"device": self.device, "dtype": getattr(torch, self.dtype)}


class AdamWithLearnedRates(fs.LearnedRates):
    """Adam's direction with a learned rate for each tensor; its root is safe at 0."""

    def init(self, params: Params) -> Any:
        return {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in params.items()}

    def update(self, params: Params, grads: Params, state: Any, step: int, loss: Tensor) -> tuple[Params, Any]:
        moved, moments = {}, {}
        for name, value in params.items():
            first = 0.9 * state[name][0] + 0.1 * grads[name]
            second = 0.999 * state[name][1] + 0.001 * grads[name].square()
            direction = first / (1 - 0.9 ** (step + 1)) / (second / (1 - 0.999 ** (step + 1)) + 1e-12).sqrt()
            moved[name], moments[name] = value - self.rate(name) * direction, (first, second)
        return moved, moments


VARIANTS: dict[str, tuple[Any, bool]] = {
    "autograd loop": (None, False),
    "autograd loop, checkpoints": (None, True),
    "unrolled": (fs.Unrolled(), False),
    "unrolled, checkpoints": (fs.Unrolled(), True),
    "recomputed, reverse": (fs.Recomputed("reverse"), False),
    "recomputed, reverse, checkpoints": (fs.Recomputed("reverse"), True),
    "recomputed, forward": (fs.Recomputed("forward"), False),
    "recomputed, forward, checkpoints": (fs.Recomputed("forward"), True),
}
"""Adjoint and checkpoints."""

IN_JAX = {
    "JAX": (False, False),
    "JAX, steps rematerialised": (True, False),
    "JAX, steps and blocks rematerialised": (True, True),
}
"""Where JAX is installed: whether ``jax_transformer.py`` rematerialises steps and blocks."""


def meta_gradient(variant: str, setting: Setting) -> Callable[[], list[Tensor]]:
    """The gradient of the query loss for the rates and the support weights."""
    if variant in IN_JAX:
        return in_jax(variant, setting)[0]
    adjoint, checkpoints = VARIANTS[variant]
    params, (support, query) = setting.parameters(), setting.data()
    loss = loss_of(SIZES[setting.size][0], checkpoints)
    make = fs.LearnedRates if setting.optimizer == "sgd" else AdamWithLearnedRates
    rule = make(params, setting.rate, per="tensor").to(params["norm"])
    learned = [*rule.parameters(), support[1]]

    def adapted() -> Params:
        if adjoint is not None:
            return fs.adapt(loss, params, support, rule, setting.steps, adjoint)
        moved = {name: value.clone().requires_grad_() for name, value in params.items()}
        state = rule.init(moved)
        for step in range(setting.steps):
            value = loss(moved, support)
            gradients = torch.autograd.grad(value, list(moved.values()), create_graph=True)
            moved, state = rule.update(moved, dict(zip(moved, gradients, strict=True)), state, step, value)
        return moved

    return lambda: list(torch.autograd.grad(loss(adapted(), query), learned))


def in_jax(variant: str, setting: Setting) -> tuple[Callable[[], list[Tensor]], float, float]:
    """The same, the MB of its program and the seconds it took to compile."""
    from jax_transformer import compiled

    tokens = torch.stack([tokens for tokens, _ in setting.data()])
    blocks = SIZES[setting.size][0]
    call, size, seconds = compiled(
        IN_JAX[variant], setting.parameters(), tokens, setting.rate, blocks, setting.steps, setting.optimizer
    )
    order = [key.replace("/", ".") for key in fs.LearnedRates(setting.parameters(), setting.rate, per="tensor").rates]

    def gradients() -> list[Tensor]:
        rates, weights = call()
        return [torch.tensor(value.tolist(), dtype=torch.float64) for value in (*(rates[n] for n in order), weights)]

    return gradients, size, seconds


def check_that_all_agree(optimizer: str, device: str, variants: Sequence[str] = (*VARIANTS,)) -> float:
    """The largest relative difference of an entry in float64 on a small setting; fails if it is not rounding."""
    setting = Setting("1M", 12, 2, 3, optimizer, device, "float64")
    expected = meta_gradient("autograd loop", setting)()
    worst = 0.0
    for variant in variants:
        pairs = list(zip(meta_gradient(variant, setting)(), expected, strict=True))
        difference = max(float(((found.to(own) - own) / own).abs().max()) for found, own in pairs)
        if not difference < 1e-6:
            raise AssertionError(f"{variant} differs from the autograd loop by {difference:.1e} of an entry.")
        worst = max(worst, difference)
    return worst


def fastest(call: Callable[[], object], rounds: int, wait: Callable[[], object] = lambda: None) -> float:
    """Seconds of the fastest of some calls."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(variant: str, setting: Setting, rounds: int) -> dict[str, float]:
    """Peak MB beyond what is there before, and seconds, of which the smallest counts."""
    if variant in IN_JAX:
        call, size, compiling = in_jax(variant, setting)
        call()
        return {"MB": size, "seconds": fastest(call, rounds), "compiling": compiling}
    meta_gradient(variant, Setting("1M", 8, 1, 2, setting.optimizer, setting.device))()  # loads what is loaded once
    call = meta_gradient(variant, setting)
    on_gpu = setting.device != "cpu"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() / 2**20 if on_gpu else memory_in_use("VmRSS")
    seconds = fastest(call, rounds, torch.cuda.synchronize if on_gpu else lambda: None)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else memory_in_use("VmHWM")
    return {"MB": peak - before, "seconds": seconds}


def measured(variant: str, setting: Setting, rounds: int) -> dict[str, float] | str:
    """The numbers, or why there are none; on a CPU from a process of its own."""
    if setting.device != "cpu":
        try:
            return measure(variant, setting, rounds)
        except torch.OutOfMemoryError:
            return "out of memory"
    words = [variant, json.dumps(asdict(setting)), str(rounds)]
    command = [sys.executable, __file__, "--child", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else f"failed ({done.returncode})"


def compare(setting: Setting, variants: Sequence[str], rounds: int, until: float) -> dict[str, Any]:
    """Measures and prints the variants of one setting, as far as the time goes."""
    found: dict[str, Any] = {}
    table = Table("", "MB", "× less than unrolled", "seconds", "× the time of unrolled")
    table.title, table.title_justify = f"{setting.steps} inner steps", "left"
    for variant in variants:
        if time.monotonic() > until:
            break
        result = found[variant] = measured(variant, setting, rounds)
        reference = found.get("unrolled")
        cells = [str(result), "", "", ""]
        if isinstance(result, dict):
            cells = [f"{result['MB']:.0f}", "", f"{result['seconds']:.3f}", ""]
            if isinstance(reference, dict):
                cells[1] = f"{reference['MB'] / max(result['MB'], 1e-3):.1f}"
                cells[3] = f"{result['seconds'] / reference['seconds']:.2f}"
        table.add_row(variant, *cells)
    console.print(table)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--size", choices=SIZES, help="default: 1M on a CPU, else 50M")
    parser.add_argument("--sequence", type=int, help="default: 128 on a CPU, else 1024")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--variants", nargs="*", choices=[*VARIANTS, *IN_JAX], default=[*VARIANTS, *IN_JAX])
    parser.add_argument("--rounds", type=int, default=2, help="of which the fastest counts (default 2)")
    parser.add_argument("--time-limit", type=float, default=600, metavar="SECONDS", help="stop measuring then")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        allocator.restart_with("auto")
        variant, setting, rounds = options.child
        print(json.dumps(measure(variant, Setting(**json.loads(setting)), int(rounds))))
        return
    until = time.monotonic() + options.time_limit
    on_cpu = options.device == "cpu"
    size, sequence = options.size or ("1M" if on_cpu else "50M"), options.sequence or (128 if on_cpu else 1024)
    count = sum(value.numel() for value in Setting(size, 1, 1, 1, "sgd", "cpu").parameters().values())
    where = torch.get_num_threads() if on_cpu else torch.cuda.get_device_name()
    console.print(
        f"torch {torch.__version__}, {where}{' thread' if on_cpu else ''}; {count / 1e6:.1f} million parameters"
    )
    console.print(f"sequences of {sequence}, batches of {options.batch}, inner {options.optimizer}")
    if find_spec("jax") is None:
        options.variants = [name for name in options.variants if name not in IN_JAX]
    checked = [name for name in options.variants if on_cpu or name not in IN_JAX]  # JAX takes minutes to compile there
    agreement = check_that_all_agree(options.optimizer, options.device, checked)
    console.print(f"All agree to {agreement:.0e}, in float64.\n")
    results = {}
    for steps in options.steps:
        setting = Setting(size, sequence, options.batch, steps, options.optimizer, options.device)
        results[steps] = compare(setting, options.variants, options.rounds, until)
        if options.json:
            options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
