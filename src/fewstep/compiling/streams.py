"""Work that is independent of each other, side by side on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Found = TypeVar("Found")

AT_MOST = 8
"""Streams that are used at once; a GPU that is full has nothing left for more."""


def side_by_side(calls: Sequence[Callable[[], Found]], device: torch.device) -> list[Found]:
    """What each call gives, each on a stream of its own, forked from the current stream and joined to it again.

    Kernels that do not fill the GPU then run at the same time, in a CUDA graph too. A call may read what was there
    before; no call may read what another one makes.

    Args:
        calls: functions without arguments.
        device: the GPU.
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
