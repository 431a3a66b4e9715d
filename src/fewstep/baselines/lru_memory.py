"""External memory with least-recently-used access (Santoro et al. 2016, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewstep.arguments import check_number, check_whole
from fewstep.baselines.distances import cosine


class MemoryState(NamedTuple):
    """The content of a memory and the weights of its last accesses.

    Attributes:
        memory: M, ``[slots, width]``.
        usage: w^u, ``[slots]``.
        reads: w^r, ``[heads, slots]``.
    """

    memory: Tensor
    usage: Tensor
    reads: Tensor


class LRUMemory(nn.Module):
    """A memory that writes to the least used or last read slots, then reads (Santoro et al. 2016, equations 2 to 8).

    With keys k_t, one per head:
    w^w_t = σ(α)·w^r_{t−1} + (1 − σ(α))·w^lu_{t−1};
    M_t = M_{t−1} + w^w_t k_t, after the least used slots are set to zero;
    w^r_t = softmax(cos(k_t, M_t)), r_t = w^r_t M_t;
    w^u_t = γ·w^u_{t−1} + w^r_t + w^w_t, summed over heads.
    The paper's w^lu marks as many least used slots as there are heads. Here, each head writes to one of them, in order.

    Args:
        slots: the number of rows of the memory.
        width: the length of a row and of a key.
        heads: the number of keys, and of reads, per step.
        decay: the decay γ of the usage.

    Raises:
        ValueError: there are fewer slots than heads.

    Examples:
        >>> memory = LRUMemory(slots=16, width=8, heads=2)
        >>> state, read = memory(memory.blank(), torch.randn(2, 8))
        >>> read.shape
        torch.Size([2, 8])
    """

    def __init__(self, slots: int = 128, width: int = 40, heads: int = 4, decay: float = 0.99) -> None:
        super().__init__()
        check_whole("LRUMemory", slots=slots, width=width, heads=heads)
        check_number("LRUMemory", 0, 1, decay=decay)
        if slots < heads:
            raise ValueError(f"LRUMemory needs at least one slot per head; got slots={slots} and heads={heads}.")
        self.slots, self.width, self.heads, self.decay = slots, width, heads, decay
        self.gate = nn.Parameter(torch.zeros(()))
        """The gate α: large values write to the slots read last, small ones to the least used."""

    def blank(self) -> MemoryState:
        """An empty, unused memory."""
        slots = self.gate.new_zeros(self.slots)
        return MemoryState(
            slots[:, None].expand(-1, self.width) + 1e-6,  # the cosine of a zero row has no gradient
            slots,
            slots.expand(self.heads, -1),
        )

    def forward(self, state: MemoryState, keys: Tensor) -> tuple[MemoryState, Tensor]:
        """Write and read with ``keys``, ``[heads, width]``.

        Returns:
            The new state, and the rows read, ``[heads, width]``.
        """
        order = state.usage.argsort(stable=True)[: self.heads]
        least_used = (torch.arange(self.slots, device=order.device) == order[:, None]).to(keys.dtype)
        gate = self.gate.sigmoid()
        writes = gate * state.reads + (1 - gate) * least_used
        kept = state.memory * (1 - least_used.sum(0))[:, None]
        memory = kept + writes.mT @ keys
        reads = cosine(keys, memory).softmax(-1)
        usage = self.decay * state.usage + (reads + writes).sum(0)
        return MemoryState(memory, usage, reads), reads @ memory
