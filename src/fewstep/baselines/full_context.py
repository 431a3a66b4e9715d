"""Full context embeddings: every embedding depends on the whole support set (Vinyals et al. 2016, appendix A)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fewstep.arguments import check_whole
from fewstep.baselines.lstm_cell import LSTMCell


class FullContext(nn.Module):
    """Embed support and query examples in the context of the support set (Vinyals et al. 2016, appendix A).

    Support: g(x_i) = h→_i + h←_i + g'(x_i), with h→ and h← the outputs of a bidirectional LSTM over the g'(x_i).
    Query: h_k = LSTM(f'(x), [h_{k−1}, r_{k−1}]) + f'(x), r_k = Σ_i a_i·g(x_i), a = softmax over i of h_kᵀg(x_i), from
    h_0 = 0; f(x) = h_K.

    The result depends on the order of the support set.

    Args:
        features: the length d of the embeddings.
        steps: the number K of processing steps of the query's LSTM.

    Raises:
        ValueError: ``steps`` is less than 1.

    Examples:
        >>> support, query = FullContext(features=8)(torch.randn(5, 8), torch.randn(3, 8))
        >>> support.shape, query.shape
        (torch.Size([5, 8]), torch.Size([3, 8]))
    """

    def __init__(self, features: int, steps: int = 5) -> None:
        super().__init__()
        check_whole("FullContext", features=features, steps=steps)
        self.steps = steps
        self.forwards, self.backwards = LSTMCell(features, features), LSTMCell(features, features)
        self.attending = LSTMCell(2 * features, features)

    def forward(self, support: Tensor, query: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute g of the support set ``[n, d]`` and f of the queries ``[m, d]``; skips examples with weight 0."""
        order = range(len(support))
        ahead = _outputs(self.forwards, support, weight, order)
        back = _outputs(self.backwards, support, weight, reversed(order))
        support = support + torch.stack([ahead[i] + back[i] for i in order])
        return support, self._attend(support, query, weight)

    def _attend(self, support: Tensor, query: Tensor, weight: Tensor | None) -> Tensor:
        bias = support.new_zeros(len(support)) if weight is None else weight.log()
        hidden = cell = torch.zeros_like(query)
        for _ in range(self.steps):
            read = (hidden @ support.mT + bias).softmax(-1) @ support
            hidden, cell = self.attending(torch.cat([query, read], -1), (hidden, cell))
            hidden = hidden + query
        return hidden


def _outputs(lstm: LSTMCell, examples: Tensor, weight: Tensor | None, order: Iterable[int]) -> dict[int, Tensor]:
    """The output of the LSTM at each example."""
    outputs = {}
    state = (torch.zeros_like(examples[0]), torch.zeros_like(examples[0]))
    for i in order:
        hidden, cell = lstm(examples[i], state)
        if weight is not None:
            hidden, cell = (
                torch.where(weight[i] > 0, new, old) for new, old in zip((hidden, cell), state, strict=True)
            )
        state = (hidden, cell)
        outputs[i] = hidden
    return outputs
