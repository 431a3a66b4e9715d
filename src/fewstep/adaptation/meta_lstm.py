"""The learned optimiser of Meta-LSTM: an LSTM whose cell is the learner's parameters."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules import Params


class Memory(NamedTuple):
    """What every coordinate remembers between steps, for n coordinates in all and H hidden units.

    Args:
        hidden: output of the first LSTM, ``[n, H]``.
        cell: its cell, ``[n, H]``.
        forget: forget gate before the sigmoid, ``[n]``.
        write: input gate before the sigmoid, ``[n]``.
    """

    hidden: Tensor
    cell: Tensor
    forget: Tensor
    write: Tensor


class MetaLSTM(nn.Module):
    """φ_{k+1} = σ(f_k) ⊙ φ_k − σ(i_k) ⊙ ∇L(φ_k), with learned gates (Ravi and Larochelle 2017, section 3.1).

    f_k = W_F·[h_k, φ_k, f_{k−1}] + b_F and i_k = W_I·[h_k, φ_k, i_{k−1}] + b_I, where h_k is the output of a first LSTM
    that reads the loss and the gradient (:func:`preprocess`). Every coordinate of the parameters has a memory of its
    own; the weights are shared by all of them. Before any training the gates are nearly constant: gradient descent at a
    rate of about 0.01 that also shrinks the parameters by 1 to 2% a step.

    The paper takes losses and gradients for constants: ``adjoint=fewstep.FirstOrder()``. The gates still get their
    exact gradients. The first LSTM keeps about 7·H numbers per coordinate and step for the backward pass, more than
    many a network keeps; where memory is short, ``chunk`` or ``vectorize=False`` takes fewer tasks at once.

    Args:
        hidden: units of the first LSTM, H.
        forget_bias: b_F is drawn uniformly from this range.
        input_bias: b_I is drawn uniformly from this range.
        generator: of the initial weights, U(−0.01, 0.01), and biases; PyTorch's global one if not given.

    Raises:
        ValueError: no hidden unit, a range that is none, or parameters of another precision or device than the rule.

    >>> import torch, fewstep
    >>> rule = MetaLSTM(generator=torch.Generator().manual_seed(0))
    >>> learner = fewstep.MetaLearner(
    ...     torch.nn.Linear(1, 1), fewstep.mse, rule=rule, steps=5, adjoint=fewstep.FirstOrder()
    ... )
    >>> learner.meta_loss(fewstep.tasks.Sinusoids(shots=5).sample(4)).backward()
    >>> rule.forget_weight.grad.shape
    torch.Size([22])
    """

    def __init__(
        self,
        hidden: int = 20,
        forget_bias: tuple[float, float] = (4.0, 5.0),
        input_bias: tuple[float, float] = (-5.0, -4.0),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"MetaLSTM: hidden must be at least 1; got {hidden}.")

        def drawn(low: float, high: float, *shape: int) -> nn.Parameter:
            if not low <= high:
                raise ValueError(f"MetaLSTM: a range of biases is (low, high); got ({low}, {high}).")
            return nn.Parameter(torch.empty(shape).uniform_(low, high, generator=generator))

        self.hidden = hidden
        # Columns of the first LSTM: input gate, forget gate, output gate, candidate.
        self.lstm_input = drawn(-0.01, 0.01, 4, 4 * hidden)
        self.lstm_hidden = drawn(-0.01, 0.01, hidden, 4 * hidden)
        self.lstm_bias = drawn(-0.01, 0.01, 4 * hidden)
        self.forget_weight = drawn(-0.01, 0.01, hidden + 2)
        self.forget_bias = drawn(*forget_bias)
        self.input_weight = drawn(-0.01, 0.01, hidden + 2)
        self.input_bias = drawn(*input_bias)

    def init(self, params: Params) -> Memory:
        own = self.lstm_bias
        for name, value in params.items():
            if value.dtype != own.dtype or value.device != own.device:
                raise ValueError(
                    f"MetaLSTM is {own.dtype} on {own.device} and the adapted parameter {name} is {value.dtype} on "
                    f"{value.device}; bring the rule to it: rule.to({name})."
                )
        count = sum(value.numel() for value in params.values())
        units, gate = own.new_zeros(count, self.hidden), own.new_zeros(count)
        return Memory(units, units, gate, gate)

    def update(self, params: Params, grads: Params, state: Memory, step: int, loss: Tensor) -> tuple[Params, Memory]:
        phi, gradient = _joined(params), _joined({name: grads[name] for name in params})
        hidden, cell = self._lstm(gradient, loss, state)
        forget = _gate(self.forget_weight, self.forget_bias, hidden, phi, state.forget)
        write = _gate(self.input_weight, self.input_bias, hidden, phi, state.write)
        moved = forget.sigmoid() * phi - write.sigmoid() * gradient
        return _split(moved, params), Memory(hidden, cell, forget, write)

    def _lstm(self, gradient: Tensor, loss: Tensor, state: Memory) -> tuple[Tensor, Tensor]:
        # Plain products: nn.LSTM has neither vmap nor forward-mode derivatives. The loss is the same everywhere, so its
        # product is taken once and not for every coordinate. Gates and candidate are apart because functions of a slice
        # are slow.
        shared = preprocess(loss) @ self.lstm_input[:2] + self.lstm_bias
        read = torch.cat([preprocess(gradient), state.hidden], -1)
        weight = torch.cat([self.lstm_input[2:], self.lstm_hidden])

        def rows(units: slice) -> Tensor:
            return torch.addmm(shared[units], read, weight[:, units])

        gates, candidate = rows(slice(3 * self.hidden)).sigmoid(), rows(slice(3 * self.hidden, None)).tanh()
        write, forget, output = gates.split(self.hidden, dim=-1)
        cell = forget * state.cell + write * candidate
        return output * cell.tanh(), cell

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}"


def preprocess(x: Tensor, p: float = 10.0) -> Tensor:
    """Two channels of a like size for numbers of any size: ``[...]`` to ``[..., 2]``.

    (log|x|/p, sign x) where |x| ≥ e^−p, else (−1, e^p·x) (Andrychowicz et al. 2016, appendix A).

    >>> import torch
    >>> preprocess(torch.tensor([1.0, -1.0, 0.0]))
    tensor([[ 0.,  1.],
            [ 0., -1.],
            [-1.,  0.]])
    """
    large = x.abs() >= math.exp(-p)
    size = torch.where(large, x.abs(), 1.0)  # so that the other branch has no log of 0, whose slope is NaN
    return torch.stack([torch.where(large, size.log() / p, -1.0), torch.where(large, x.sign(), math.exp(p) * x)], -1)


def _gate(weight: Tensor, bias: Tensor, hidden: Tensor, phi: Tensor, past: Tensor) -> Tensor:
    return hidden @ weight[:-2] + weight[-2] * phi + weight[-1] * past + bias


def _joined(params: Params) -> Tensor:
    return torch.cat([value.reshape(-1) for value in params.values()])


def _split(joined: Tensor, like: Params) -> Params:
    pieces = joined.split([value.numel() for value in like.values()])
    return {name: piece.view(like[name].shape) for (name, piece) in zip(like, pieces, strict=True)}
