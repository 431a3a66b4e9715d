"""CUDA graphs: the kernels of one call, recorded and then launched together."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.random_numbers import replayed
from fewstep.compiling.garbage import without_garbage_collection

WARM_UP = 2
"""Calls before the recorded one, in which libraries allocate workspaces and select kernels."""


def captured(
    function: Callable[..., list[Tensor]], example: Sequence[Tensor], memory: Any
) -> Callable[..., Sequence[Tensor]]:
    """Record ``function`` as a CUDA graph, for arguments like ``example``.

    Python takes longer to launch a small kernel than the GPU takes to run it. Recorded kernels are launched together.

    Args:
        function: the function to record; it allocates no memory except for its results.
        example: its arguments, on a GPU.
        memory: from ``torch.cuda.graph_pool_handle()``. Functions that do not run at the same time can share it.

    Returns:
        A function of tensors with the shapes, dtypes and strides of ``example``.

    Raises:
        RuntimeError: the function waits for the GPU, for example to read a number back.
    """
    inputs = [tensor.clone() for tensor in example]
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(example[0].device)
    stream.wait_stream(torch.cuda.current_stream(example[0].device))
    with torch.cuda.device(example[0].device), torch.no_grad():
        with replayed(), torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function(*inputs)
        gc.collect()
        try:
            # If the collector freed an older graph during the recording, the recording would fail.
            with without_garbage_collection(), torch.cuda.graph(graph, memory, stream):
                outputs = function(*inputs)
        except RuntimeError as error:
            raise RuntimeError(
                f"compile=True records the meta-step as a CUDA graph, which failed: {str(error).splitlines()[0]} "
                "Model, loss and rule must not read numbers back while they run (.item(), bool(tensor), "
                "tensor[mask]) nor make tensors from Python numbers. Change them, or use compile=False."
            ) from error

    def replay(*tensors: Tensor) -> list[Tensor]:
        torch._foreach_copy_(inputs, tensors)
        graph.replay()
        return [output.clone() for output in outputs]  # the next replay overwrites them

    return replay
