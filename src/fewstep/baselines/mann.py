"""Memory-augmented neural network: an LSTM with an external memory (Santoro et al. 2016)."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.baselines.episodic import EpisodicLearner, Logits
from fewstep.baselines.labels import memberships
from fewstep.baselines.lru_memory import LRUMemory, MemoryState
from fewstep.baselines.lstm_cell import LSTMCell
from fewstep.objectives import cross_entropy
from fewstep.tasks import Batch


class MANN(EpisodicLearner):
    """Reads the support set one by one, each label a step late, then answers (Santoro et al. 2016, sections 2 and 3).

    At step t the controller sees (f(x_t), y_{t−1}, r_{t−1}); its output h_t gives the keys of
    [`LRUMemory`][fewstep.baselines.LRUMemory] (linear, then tanh), which give r_t, and the logits are linear in (h_t,
    r_t).

    This follows the protocol of support and query, and there it differs from the paper: the sequence is the support
    set, and each query is one more step from the state after it, whose trace in the memory no other query sees; the
    loss is the cross-entropy of the queries, where the paper's is summed over a sequence of 50 presentations with
    labels of all of them. So the paper's accuracy "at the k-th instance of a class" is the accuracy at k − 1 shots.

    The support set is read in the order in which it comes, so the order matters. Examples of weight 0 are passed
    over; otherwise the weights of the support set have no effect.

    Args:
        encoder: images to feature vectors ``[n, features]``; the paper has none, which is ``nn.Flatten()``.
        features: length of the feature vectors.
        ways: classes of a task.
        hidden: of the LSTM.
        memory: the memory; the paper's 128 slots of 40 with 4 heads if not given; it is copied.

    Examples:
        >>> learner = MANN(nn.Flatten(), features=4, ways=3)
        >>> learner.adapt(Batch(torch.randn(3, 4), torch.arange(3)))(torch.randn(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, encoder: nn.Module, features: int, ways: int, hidden: int = 200, memory: LRUMemory | None = None
    ) -> None:
        super().__init__(encoder, ways, cross_entropy)
        self.memory = LRUMemory() if memory is None else copy.deepcopy(memory)
        heads, width = self.memory.heads, self.memory.width
        self.controller = LSTMCell(features + ways + heads * width, hidden)
        self.keys = nn.Linear(hidden, heads * width)
        self.answer = nn.Linear(hidden + heads * width, ways)

    def classify(self, support: Batch, x: Tensor) -> Logits:
        examples, queries = self.embed(support, x)
        labels = memberships(Batch(support.x, support.y), self.ways, examples)
        state = self._start()
        for i, (example, label) in enumerate(zip(examples, labels, strict=True)):
            seen = self._step(state, example)[0]._replace(label=label)
            if support.weight is not None:
                real = support.weight[i] > 0
                seen = tree_map(lambda new, old, real=real: torch.where(real, new, old), seen, state)
            state = seen
        return torch.vmap(lambda query: self._step(state, query)[1])(queries)

    def _start(self) -> _State:
        blank = self.memory.blank()
        hidden = blank.usage.new_zeros(self.keys.in_features)
        read = blank.usage.new_zeros(self.keys.out_features)
        return _State(hidden, hidden, read, blank.usage.new_zeros(self.ways), blank)

    def _step(self, state: _State, example: Tensor) -> tuple[_State, Tensor]:
        """One presentation, of a feature vector ``[features]``: the state after it, and logits ``[ways]``."""
        seen = torch.cat([example, state.label, state.read])
        hidden, cell = self.controller(seen, (state.hidden, state.cell))
        keys = self.keys(hidden).tanh().view(self.memory.heads, self.memory.width)
        memory, read = self.memory(state.memory, keys)
        read = read.flatten()
        return _State(hidden, cell, read, state.label, memory), self.answer(torch.cat([hidden, read]))


class _State(NamedTuple):
    """What one presentation hands to the next: the controller, what it read, and the label that it has yet to see."""

    hidden: Tensor
    cell: Tensor
    read: Tensor
    label: Tensor
    memory: MemoryState
