"""The learned optimiser of Meta-LSTM: an LSTM whose cell state is the model's parameters."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewstep.adaptation.rules import Params
from fewstep.arguments import check_generator, check_range, check_whole


class Memory(NamedTuple):
    """The state of the rule between steps, for n coordinates in total and H hidden units."""

    hidden: Tensor
    """The output of the first LSTM, ``[n, H]``."""
    cell: Tensor
    """The cell state of the first LSTM, ``[n, H]``."""
    forget: Tensor
    """The forget gate before the sigmoid, ``[n]``."""
    write: Tensor
    """The input gate before the sigmoid, ``[n]``."""


class MetaLSTM(nn.Module):
    """A learned update with a forget gate and an input gate (Ravi and Larochelle 2017, section 3.1).

    φ_{k+1} = σ(f_k) ⊙ φ_k − σ(i_k) ⊙ ∇L(φ_k) with f_k = W_F·[h_k, φ_k, f_{k−1}] + b_F and
    i_k = W_I·[h_k, φ_k, i_{k−1}] + b_I, where h_k is the output of a first LSTM that reads the loss and the gradient,
    preprocessed as in Andrychowicz et al. (2016, appendix A). Every coordinate of the parameters has its own state; all
    share the weights. At initialisation the gates are nearly constant: the update is gradient descent with a rate of
    about 0.01 that also shrinks the parameters by 1 to 2% per step.

    The paper treats losses and gradients as constants (``adjoint=fewstep.FirstOrder()``); the gates still get exact
    gradients. The first LSTM keeps about 7·H numbers per coordinate and step for the backward pass. If memory is short,
    evaluate fewer tasks at once with ``chunk`` or ``vectorize=False``.

    Args:
        hidden: the number of hidden units of the first LSTM, H.
        forget_bias: (low, high), the range from which b_F is drawn uniformly.
        input_bias: (low, high), the range from which b_I is drawn uniformly.
        generator: of the initial weights, drawn from U(−0.01, 0.01), and biases; ``None`` for PyTorch's global one.

    Raises:
        ValueError: ``hidden`` < 1 or low > high; or, in the first inner step, an adapted parameter has another dtype or
            device than the rule.

    Examples:
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
        check_whole("MetaLSTM", hidden=hidden)
        check_range("MetaLSTM", forget_bias=forget_bias, input_bias=input_bias)
        check_generator("MetaLSTM", generator)

        def drawn(low: float, high: float, *shape: int) -> nn.Parameter:
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
                    f"MetaLSTM is {own.dtype} on {own.device}, but the adapted parameter {name} is {value.dtype} on "
                    f"{value.device}. Move the rule: rule.to({name})."
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
        # Plain matrix products, since nn.LSTM supports neither vmap nor forward-mode derivatives. The loss is the same
        # for all coordinates, so its product is computed once. Gates and candidate are separate products because
        # functions of a slice are slow.
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
    """Map numbers of any magnitude to two channels of similar magnitude, ``[...]`` to ``[..., 2]``.

    (log|x|/p, sign x) if |x| ≥ e^−p, else (−1, e^p·x) (Andrychowicz et al. 2016, appendix A).

    Examples:
        >>> import torch
        >>> preprocess(torch.tensor([1.0, -1.0, 0.0]))
        tensor([[ 0.,  1.],
                [ 0., -1.],
                [-1.,  0.]])
    """
    large = x.abs() >= math.exp(-p)
    size = torch.where(large, x.abs(), 1.0)  # log(0) in the branch that is not taken would make the gradient NaN
    return torch.stack([torch.where(large, size.log() / p, -1.0), torch.where(large, x.sign(), math.exp(p) * x)], -1)


def _gate(weight: Tensor, bias: Tensor, hidden: Tensor, phi: Tensor, past: Tensor) -> Tensor:
    return hidden @ weight[:-2] + weight[-2] * phi + weight[-1] * past + bias


def _joined(params: Params) -> Tensor:
    return torch.cat([value.reshape(-1) for value in params.values()])


def _split(joined: Tensor, like: Params) -> Params:
    pieces = joined.split([value.numel() for value in like.values()])
    return {name: piece.view(like[name].shape) for (name, piece) in zip(like, pieces, strict=True)}
