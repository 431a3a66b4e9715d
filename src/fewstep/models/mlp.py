"""The multilayer perceptron of the regression experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from fewstep.arguments import check_factory, check_number, check_whole, check_widths


class MLP(nn.Sequential):
    """A multilayer perceptron; ``MLP(1, [40, 40], 1)`` is the network of MAML's sine waves (section 5.1).

    Args:
        inputs: the number of input features.
        hidden: the width of each hidden layer.
        outputs: the number of output features.
        activation: a function without arguments that makes the module between two layers.
        weight_std: if given, weights are drawn from a normal distribution with this standard deviation, truncated at
            two standard deviations, and biases are 0 (0.01 in the authors' code for sine waves). ``None`` keeps
            PyTorch's initialisation.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a size is less than 1, or ``weight_std`` is not positive.

    Examples:
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
        check_whole("MLP", inputs=inputs, outputs=outputs)
        check_widths("MLP", hidden=hidden)
        check_factory("MLP", activation=activation)
        if weight_std is not None:
            check_number("MLP", 0, above=True, weight_std=weight_std)
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
