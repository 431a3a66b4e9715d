"""LSTM, GRU and RNN computed step by step, where PyTorch uses a fused kernel without second derivatives.

oneDNN's LSTM has no forward-mode derivative and does not run under vmap; cuDNN's kernels have no second derivative. The
results are those of the kernels, with dropout between layers, both directions, projections and packed sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.pytorch import under_vmap

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Sequence[Tensor], bool], State]
"""(gates from the input, state, weights of the layer, whether there are biases) → the next state, output first."""


def _lstm_cell(given: Tensor, state: State, weights: Sequence[Tensor], biased: bool) -> State:
    hidden, cell = state
    gates = given + _from_hidden(hidden, weights, biased)
    write, keep, content, read = gates.chunk(4, -1)
    cell = keep.sigmoid() * cell + write.sigmoid() * content.tanh()
    hidden = read.sigmoid() * cell.tanh()
    if len(weights) % 2:  # a projection
        hidden = functional.linear(hidden, weights[-1])
    return hidden, cell


def _gru_cell(given: Tensor, state: State, weights: Sequence[Tensor], biased: bool) -> State:
    (hidden,) = state
    reset, update, content = given.chunk(3, -1)
    hidden_reset, hidden_update, hidden_content = _from_hidden(hidden, weights, biased).chunk(3, -1)
    new = (content + (reset + hidden_reset).sigmoid() * hidden_content).tanh()
    return (new + (update + hidden_update).sigmoid() * (hidden - new),)


def _tanh_cell(given: Tensor, state: State, weights: Sequence[Tensor], biased: bool) -> State:
    return ((given + _from_hidden(state[0], weights, biased)).tanh(),)


def _relu_cell(given: Tensor, state: State, weights: Sequence[Tensor], biased: bool) -> State:
    return ((given + _from_hidden(state[0], weights, biased)).relu(),)


def _from_hidden(hidden: Tensor, weights: Sequence[Tensor], biased: bool) -> Tensor:
    return functional.linear(hidden, weights[1], weights[3] if biased else None)


def _fused(input: Tensor, function: Any) -> bool:
    """Whether PyTorch would use a kernel of cuDNN or oneDNN, or one that vmap does not support."""
    if input.device.type != "cpu" or under_vmap():
        return True
    return function is torch.lstm and input.dtype != torch.float64 and bool(torch.backends.mkldnn.enabled)


def _step_by_step(function: Callable[..., Any], cell: Cell) -> Callable[..., Any]:
    def network(input: Tensor, *arguments: Any) -> Any:
        packed = isinstance(arguments[1], Tensor) or (isinstance(arguments[0], Tensor) and function is torch.lstm)
        if not _fused(input, function):
            return function(input, *arguments)
        sizes = None
        if packed:
            sizes, *arguments = arguments  # type: ignore[assignment]
            sizes = [int(size) for size in sizes]
            arguments = (*arguments, False)
        states, weights, biased, layers, dropout, train, both, batch_first = arguments
        states = (states,) if isinstance(states, Tensor) else tuple(states)
        x = input.transpose(0, 1) if batch_first else input
        per = len(weights) // (layers * (1 + both))
        last: list[State] = []
        for layer in range(layers):
            outputs = []
            for backwards in range(1 + both):
                place = len(last)
                own = weights[place * per : (place + 1) * per]
                given = functional.linear(x, own[0], own[2] if biased else None)
                steps = given.unbind(0) if sizes is None else given.split(sizes)
                run = _backwards if backwards else _forwards
                output, state = run(cell, steps, tuple(s[place] for s in states), own, biased)
                outputs.append(torch.stack(output) if sizes is None else torch.cat(output))
                last.append(state)
            x = torch.cat(outputs, -1) if both else outputs[0]
            if dropout and train and layer < layers - 1:
                x = functional.dropout(x, dropout)
        final = [torch.stack(parts) for parts in zip(*last, strict=True)]
        return (x.transpose(0, 1) if batch_first else x, *final)

    return network


def _forwards(
    cell: Cell, steps: Sequence[Tensor], state: State, weights: Sequence[Tensor], biased: bool
) -> tuple[list[Tensor], State]:
    """Sequences that have ended are the last ones of the batch, and are removed."""
    outputs, over = [], []
    for given in steps:
        count = given.shape[0]
        if given.ndim > 1 and count < state[0].shape[0]:
            over.append(tuple(part[count:] for part in state))
            state = tuple(part[:count] for part in state)
        state = cell(given, state, weights, biased)
        outputs.append(state[0])
    return outputs, tuple(torch.cat(parts) for parts in zip(state, *reversed(over), strict=True)) if over else state


def _backwards(
    cell: Cell, steps: Sequence[Tensor], start: State, weights: Sequence[Tensor], biased: bool
) -> tuple[list[Tensor], State]:
    """The longest sequences start; each of the others joins at its last step."""
    outputs: list[Tensor] = []
    batched = steps[0].ndim > 1
    state = tuple(part[: steps[-1].shape[0]] for part in start) if batched else start
    for given in reversed(steps):
        present = state[0].shape[0]
        if batched and given.shape[0] > present:
            joining = (part[present : given.shape[0]] for part in start)
            state = tuple(torch.cat(parts) for parts in zip(state, joining, strict=True))
        state = cell(given, state, weights, biased)
        outputs.append(state[0])
    return outputs[::-1], state


def _lstm_cell_alone(
    input: Tensor,
    state: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Any:
    if input.device.type == "cpu" and not under_vmap():
        return torch.lstm_cell(input, tuple(state), w_ih, w_hh, b_ih, b_hh)
    biased = b_ih is not None
    weights = [w_ih, w_hh, *(bias for bias in (b_ih, b_hh) if bias is not None)]
    return _lstm_cell(functional.linear(input, w_ih, b_ih), tuple(state), weights, biased)


RECURRENCE: dict[Any, Callable[..., Any]] = {
    torch.lstm: _step_by_step(torch.lstm, _lstm_cell),
    torch.lstm_cell: _lstm_cell_alone,
    torch.gru: _step_by_step(torch.gru, _gru_cell),
    torch.rnn_tanh: _step_by_step(torch.rnn_tanh, _tanh_cell),
    torch.rnn_relu: _step_by_step(torch.rnn_relu, _relu_cell),
}
"""The replacement for each of PyTorch's recurrent networks."""
