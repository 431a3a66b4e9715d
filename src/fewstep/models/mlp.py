"""The multilayer perceptron of the regression experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Linear layers with a nonlinearity between them; the paper's sinusoid network is ``MLP(1, [40, 40], 1)``.

    Args:
        inputs: number of input features.
        hidden: width of each hidden layer.
        outputs: number of output features.
        activation: makes the nonlinearity, a module.
        weight_std: if given, weights are drawn from a normal truncated at two of these standard deviations and
            biases are zero (the reference sinusoid network uses 0.01); otherwise PyTorch's initialisation stays.

    >>> MLP(1, [40, 40], 1)
    MLP(
      (0): Linear(in_features=1, out_features=40, bias=True)
      (1): ReLU()
      (2): Linear(in_features=40, out_features=40, bias=True)
      (3): ReLU()
      (4): Linear(in_features=40, out_features=1, bias=True)
    )
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        weight_std: float | None = None,
    ) -> None:
        widths = [inputs, *hidden, outputs]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        super().__init__(*layers[:-1])
        if weight_std is not None:
            for layer in self:
                if isinstance(layer, nn.Linear):
                    nn.init.trunc_normal_(layer.weight, std=weight_std, a=-2 * weight_std, b=2 * weight_std)
                    nn.init.zeros_(layer.bias)
