"""The few-shot settings that the benchmarks of classification measure, from the rows of the MAML paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

import fewstep as fs


@dataclass(frozen=True)
class Setting:
    """A row of the paper."""

    ways: int
    queries: int
    tasks: int
    steps: int
    inner_lr: float
    network: Callable[[int], fs.models.Conv4]

    def sample(self, tasks: int, device: str, dtype: torch.dtype = torch.float32) -> fs.tasks.Task:
        network = self.network(self.ways)
        size = network.in_channels, network.image_size, network.image_size

        def batch(per_class: int) -> fs.tasks.Batch:
            labels = torch.arange(self.ways).repeat_interleave(per_class).expand(tasks, -1)
            return fs.tasks.Batch(torch.rand(*labels.shape, *size, dtype=dtype), labels)

        return fs.tasks.Task(batch(1), batch(self.queries)).to(device)


# The papers' normalisation, by the statistics of the batch.
_omniglot = partial(fs.models.Conv4.omniglot, norm="batch")
_mini_imagenet = partial(fs.models.Conv4.mini_imagenet, norm="batch")

SETTINGS = {
    "Omniglot, 5-way 1-shot, 32 tasks, 1 step": Setting(5, 1, 32, 1, 2.0, _omniglot),
    "Omniglot, 20-way 1-shot, 16 tasks, 5 steps": Setting(20, 1, 16, 5, 2.0, _omniglot),
    "miniImageNet, 5-way 1-shot, 4 tasks, 5 steps": Setting(5, 15, 4, 5, 0.05, _mini_imagenet),
}
