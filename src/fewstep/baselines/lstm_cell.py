"""An LSTM cell of plain matrix products, which runs under vmap, unlike PyTorch's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""Output h and cell c, each ``[..., hidden]``."""


class LSTMCell(nn.Module):
    """An LSTM cell (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    c' = σ(f)⊙c + σ(i)⊙tanh(g) and h' = σ(o)⊙tanh(c'), where i, f, g and o are linear in x and h.

    Args:
        inputs: the size of x.
        hidden: the size of h and c.

    Examples:
        >>> h, c = LSTMCell(3, 4)(torch.randn(7, 3), (torch.zeros(7, 4), torch.zeros(7, 4)))
        >>> h.shape, c.shape
        (torch.Size([7, 4]), torch.Size([7, 4]))
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def forward(self, x: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], -1)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
