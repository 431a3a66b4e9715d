"""What an experiment is: one row of a paper's table, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import torch
from torch import Tensor

from fewstep.experiments.option_types import Count, NotAnOption, Number, Positive, check_options
from fewstep.experiments.other_norms import OtherNorm
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
        return torch.device(self.device).type == "cuda"

    def compiles(self, iterations: int) -> bool | str:
        """How the learner of a run of so many iterations is to compile, as :class:`fewstep.MetaLearner` takes it."""
        if self.on_gpu:
            return True if iterations >= self.fuse_from else "record"
        return self.compile

    def placed(self, source: TaskSource) -> TaskSource:
        """The source with its images on the device, if it has any."""
        return source.to(self.device) if isinstance(source, Episodes) else source


class Experiment(Protocol):
    """A setting that can be trained and tested; a frozen dataclass whose fields are the command line's options."""

    iterations: int
    meta_batch: int

    @property
    def tasks_per_iteration(self) -> float:
        """Training tasks of one outer iteration."""
        ...

    @property
    def metric(self) -> Callable[..., Tensor]:
        """What is measured."""
        ...

    @property
    def test_steps(self) -> int:
        """Inner steps at test."""
        ...

    @property
    def test_checkpoint(self) -> str:
        """Which checkpoint is tested: ``"best"`` or ``"last"``."""
        ...

    def learner(self, compile: bool | str) -> Any:
        """A fresh learner, its weights from PyTorch's global generator; ``compile`` is that of ``MetaLearner``."""
        ...

    def outer_optimizer(self, learner: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimiser of the outer loop over the learner's parameters."""
        ...

    def train_source(self) -> TaskSource:
        """Where training tasks come from."""
        ...

    def validation_source(self) -> TaskSource:
        """Where validation tasks come from."""
        ...

    def test_source(self, shots: int | None = None, queries: int | None = None) -> TaskSource:
        """Where test tasks come from; with other numbers of shots and queries (of a class) if given."""
        ...

    def plot(self, run: Any) -> list[Any]:
        """Draws the figures of a run into its folder, and returns their files."""
        ...

    def example(self, run: Any) -> tuple[Any, str] | None:
        """A figure of what the learner does in one task, and its caption, for a report; ``None`` if there is none."""
        ...


@dataclass(frozen=True)
class Row:
    """A named experiment: one row of a paper's table.

    Args:
        name: data-ways-shots-method.
        summary: one line.
        config: the experiment with the row's settings.
        paper: the paper's numbers, by number of inner steps.
        paper_ci95: half of the intervals that the paper prints beside them, where it does.
        source: where they are printed.
        training: fields of :class:`Training` that the row needs otherwise.
        other_shots: numbers of shots that it is tested with beside its own.
        other_norms: normalisation policies that it is tested under; its own among them changes nothing.
    """

    name: str
    summary: str
    config: Any
    paper: dict[int, float] = field(default_factory=dict)
    source: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    other_shots: tuple[int, ...] = ()
    other_norms: tuple[OtherNorm, ...] = ()
    paper_ci95: dict[int, float] = field(default_factory=dict)
