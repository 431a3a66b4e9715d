"""Memory-augmented neural network: an LSTM with an external memory (Santoro et al. 2016)."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.arguments import check_whole
from fewstep.baselines.episodic import EpisodicLearner, Logits
from fewstep.baselines.labels import memberships
from fewstep.baselines.lru_memory import LRUMemory, MemoryState
from fewstep.baselines.lstm_cell import LSTMCell
from fewstep.objectives import cross_entropy
from fewstep.tasks import Batch


class MANN(EpisodicLearner):
    """An LSTM with memory that reads the support set in sequence, each label one step late (Santoro et al. 2016).

    At step t the input of the controller is (f(x_t), y_{t−1}, r_{t−1}) (section 2). Its output h_t is mapped to the
    keys of [`LRUMemory`][fewstep.baselines.LRUMemory] by a linear layer and tanh; the memory returns r_t, and the
    logits are linear in (h_t, r_t) (section 3).

    The protocol of support and query sets differs from the paper's. The sequence is the support set, and each query is
    one more step from the state after it, independent of the other queries. The loss is the cross-entropy of the
    queries; the paper's is summed over a sequence of 50 labelled presentations. The paper's accuracy at the k-th
    instance of a class corresponds to the accuracy at k − 1 shots.

    The result depends on the order of the support set. Examples with weight 0 are skipped; other weights of the support
    set have no effect.

    Args:
        encoder: maps images to feature vectors ``[n, features]``; ``nn.Flatten()`` in the paper.
        features: the length of the feature vectors.
        ways: the number of classes of a task.
        hidden: the size of the LSTM.
        memory: the memory, which is copied; if not given, the paper's, with 128 slots of width 40 and 4 heads.

    Examples:
        >>> learner = MANN(nn.Flatten(), features=4, ways=3)
        >>> learner.adapt(Batch(torch.randn(3, 4), torch.arange(3)))(torch.randn(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, encoder: nn.Module, features: int, ways: int, hidden: int = 200, memory: LRUMemory | None = None
    ) -> None:
        super().__init__(encoder, ways, cross_entropy)
        check_whole("MANN", features=features, hidden=hidden)
        if memory is not None and not isinstance(memory, LRUMemory):
            raise TypeError(f"MANN: memory must be a fewstep.baselines.LRUMemory; got {type(memory).__name__}.")
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
        """Process one feature vector ``[features]``; returns the new state and the logits ``[ways]``."""
        seen = torch.cat([example, state.label, state.read])
        hidden, cell = self.controller(seen, (state.hidden, state.cell))
        keys = self.keys(hidden).tanh().view(self.memory.heads, self.memory.width)
        memory, read = self.memory(state.memory, keys)
        read = read.flatten()
        return _State(hidden, cell, read, state.label, memory), self.answer(torch.cat([hidden, read]))


class _State(NamedTuple):
    """The state between two steps: of the controller and the memory, the rows read, and the previous label."""

    hidden: Tensor
    cell: Tensor
    read: Tensor
    label: Tensor
    memory: MemoryState
