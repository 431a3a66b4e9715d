"""Concurrent execution of independent work on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Found = TypeVar("Found")

AT_MOST = 8
"""The maximum number of concurrent streams; more of them bring nothing once the GPU is busy."""


def side_by_side(calls: Sequence[Callable[[], Found]], device: torch.device) -> list[Found]:
    """Call functions concurrently, on separate streams that fork from the current stream and join it.

    Kernels that do not fill the GPU then run at the same time, in a CUDA graph too. A call must not read what another
    call computes.

    Args:
        calls: functions without arguments.
        device: the GPU.

    Returns:
        The results of the calls.
    """
    if len(calls) == 1:
        return [calls[0]()]
    present = torch.cuda.current_stream(device)
    streams = [torch.cuda.Stream(device) for _ in calls[:AT_MOST]]
    for stream in streams:
        stream.wait_stream(present)
    found = []
    for index, call in enumerate(calls):
        with torch.cuda.stream(streams[index % len(streams)]):
            found.append(call())
    for stream in streams:
        present.wait_stream(stream)
    return found
