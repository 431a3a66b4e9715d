"""``DistributedDataParallel`` around a learner, adapters on a frozen base, and FSDP2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import parallel
from fewstep.tasks import Sinusoids, Task


def tasks_of(count: int) -> Task:
    return Sinusoids(shots=4, queries=6).sample(count, torch.Generator().manual_seed(count))


def gradients_of(learner: nn.Module) -> list[Tensor]:
    return [value.grad.clone() for value in learner.parameters() if value.grad is not None]


def with_ddp() -> list[Tensor]:
    torch.manual_seed(0)
    learner = fs.maml(fs.models.MLP(1, [8], 1), fs.mse, inner_lr=0.05)
    processes, tasks = parallel.start(), tasks_of(6)
    share = processes.share(6)
    wrapped = nn.parallel.DistributedDataParallel(learner)
    wrapped(tasks[share.start : share.stop]).backward()
    return gradients_of(learner)


def test_ddp_averages_the_meta_gradient(two: Any) -> None:
    torch.manual_seed(0)
    learner = fs.maml(fs.models.MLP(1, [8], 1), fs.mse, inner_lr=0.05)
    learner.meta_gradient(tasks_of(6))
    for found in two(with_ddp):
        torch.testing.assert_close(found, gradients_of(learner))


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank adapter."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, inputs) * 0.3)
        self.up = nn.Parameter(torch.randn(outputs, 2) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def adapters_on_a_base(shared: bool) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(Adapted(1, 8), nn.Tanh(), Adapted(8, 1))
    learner = fs.maml(model, fs.mse, inner_lr=0.05, steps=2, adjoint=fs.Recomputed())
    with parallel.together() if shared else parallel.alone():
        learner.meta_gradient(tasks_of(4))
    return gradients_of(learner)


def test_adapters_on_a_frozen_base_that_every_process_holds(two: Any) -> None:
    alone = adapters_on_a_base(False)
    assert len(alone) == 4
    for found in two(adapters_on_a_base, True):
        torch.testing.assert_close(found, alone)


def sharded() -> str:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    processes = parallel.start()
    learner = fs.maml(nn.Sequential(Adapted(1, 8), Adapted(8, 1)), fs.mse, inner_lr=0.05, vectorize=False)
    layer = learner.model[0]
    fully_shard(layer, mesh=init_device_mesh("cpu", (processes.size,)), ignored_params={layer.down, layer.up})
    with parallel.together():
        try:
            learner.meta_gradient(tasks_of(4))
        except ValueError as error:
            return str(error)
    return "nothing"


def test_a_model_that_fsdp_shards_is_refused(two: Any) -> None:
    for words in two(sharded):
        assert words.startswith("model.0 is sharded by fully_shard (FSDP2), which is not supported")
