"""How a run is carried out: seed, device, precision, gradient clipping, schedule, logging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from fewstep.experiments.option_types import Count, NotAnOption, Number, Positive, check_options
from fewstep.tasks import Episodes, TaskSource


@dataclass(frozen=True)
class Training:
    """How a run is carried out, whatever the experiment."""

    seed: Number = 0
    """Seed of the initial weights and of all meta-batches."""
    device: Annotated[str, NotAnOption] = "cpu"
    """Device: cpu, cuda, cuda:1 or mps."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of parameters and data."""
    threads: Annotated[Number, NotAnOption] = 1
    """CPU threads; small networks are fastest with 1. 0 leaves the number to PyTorch."""
    compile: bool = True
    """On CPUs, compile the whole meta-step into one graph. This takes some seconds at the start and needs a C++
    compiler."""
    fuse_from: Number = 10_000
    """On CUDA devices, fuse the kernels of the meta-step before they are recorded as a CUDA graph, in runs of at least
    this number of iterations. This halves the time of a step and takes half a minute to two minutes at the start."""
    precision: Literal["tf32", "float32"] = "tf32"
    """On CUDA devices, precision of the factors in convolutions: tf32, PyTorch's default, or float32."""
    clip_value: Positive | None = None
    """Clamp every entry of the meta-gradient to plus or minus this value."""
    clip_norm: Positive | None = None
    """Scale the meta-gradient down to this norm."""
    on_nan: Literal["raise", "skip"] = "raise"
    """When the loss or its gradient is NaN or infinite: raise ends training, skip skips the meta-batch."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Outer learning rate over the iterations: constant, linear (down to 0), or cosine (down to a hundredth)."""
    log_every: Count = 100
    """Iterations per line of metrics.jsonl."""
    checkpoint_every: Count = 1000
    """Iterations between checkpoints."""
    validate_every: Count = 2000
    """Iterations between validations."""
    validation_tasks: Count = 400
    """Number of validation tasks. They are adapted for as many inner steps as test tasks."""

    def check(self) -> None:
        """Checks the options, and that the device exists.

        Raises:
            ValueError: an option is wrong, or the device does not exist on this machine.
        """
        check_options(self)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be less than 2**63; got {self.seed}.")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64; got {self.dtype!r}.")
        if self.precision not in ("tf32", "float32"):
            raise ValueError(f"precision must be tf32 or float32; got {self.precision!r}.")
        if self.schedule not in ("constant", "linear", "cosine"):
            raise ValueError(f"schedule must be constant, linear or cosine; got {self.schedule!r}.")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # PyTorch raises either
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(
                f"there is no device {self.device!r} on this machine: {reason}. Use another, such as --device cpu."
            ) from error

    @property
    def on_gpu(self) -> bool:
        """Whether meta-steps are recorded as CUDA graphs."""
        return self.device.partition(":")[0] == "cuda"

    def compiles(self, iterations: int) -> bool | str:
        """The option `compile` of [`MetaLearner`][fewstep.MetaLearner] for a run of this number of iterations."""
        if self.on_gpu:
            return True if iterations >= self.fuse_from else "record"
        return self.compile

    def placed(self, source: TaskSource) -> TaskSource:
        """The source, with its images on the device if it has any."""
        return source.to(self.device) if isinstance(source, Episodes) else source
