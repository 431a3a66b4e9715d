"""On a GPU: the kernels of one call, recorded as a CUDA graph and from then on launched together."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.random_numbers import replayed
from fewstep.compiling.garbage import without_garbage_collection

WARM_UP = 2
"""Calls before the one that is recorded: libraries make their workspaces and choose their kernels."""


def captured(
    function: Callable[..., list[Tensor]], example: Sequence[Tensor], memory: Any
) -> Callable[..., Sequence[Tensor]]:
    """``function`` for CUDA tensors like those of ``example``, without Python or launches of single kernels.

    Small kernels take less time than Python needs to launch them one by one; recorded, they follow each other at once.

    Args:
        function: what is recorded; it leaves nothing in memory but what it returns.
        example: its arguments.
        memory: from ``torch.cuda.graph_pool_handle()``; functions of which one runs at a time can share it.

    Raises:
        RuntimeError: the function waits for the GPU, as it does to read a number back.
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
            # A graph recorded before that the collector freed meanwhile would spoil this one.
            with without_garbage_collection(), torch.cuda.graph(graph, memory, stream):
                outputs = function(*inputs)
        except RuntimeError as error:
            raise RuntimeError(
                f"compile=True records the meta-step as a CUDA graph, which failed: {str(error).splitlines()[0]} "
                "Model, loss and rule must not read numbers back while they run (.item(), bool(tensor), "
                "tensor[mask]) nor make tensors from numbers of Python; or pass compile=False."
            ) from error

    def replay(*tensors: Tensor) -> list[Tensor]:
        torch._foreach_copy_(inputs, tensors)
        graph.replay()
        return [output.clone() for output in outputs]  # the next replay writes to the same memory

    return replay
