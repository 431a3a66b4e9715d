"""The fully connected network of the MAML paper (appendix A.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.arguments import check_whole, check_widths
from fewstep.models.images import check_norm
from fewstep.models.normalization import Policy, SupportNorm, norm_layer


class DenseBlock(nn.Module):
    """A linear layer, normalisation and ReLU.

    The linear layer has a bias only without normalisation, which has its own shift.

    Args:
        inputs: the number of input features.
        outputs: the number of output features.
        norm: normalises ``outputs`` channels.
    """

    def __init__(self, inputs: int, outputs: int, norm: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=isinstance(norm, nn.Identity))
        self.norm = norm

    def forward(self, x: Float[Tensor, "examples inputs"]) -> Float[Tensor, "examples outputs"]:
        """Map ``[examples, inputs]`` to ``[examples, outputs]``."""
        return torch.relu(self.norm(self.linear(x)))


class FullyConnected(nn.Module):
    """Linear layers with normalisation and ReLU, and a linear head, for inputs of any shape (MAML, appendix A.1).

    ``body`` holds the hidden layers and ``head`` the last one, so that ``adapts="head.*"`` is ANIL. As in the MAML
    paper's code, weights are drawn from a normal distribution with standard deviation 0.01, truncated at two standard
    deviations, and biases start at 0. [`maml`][fewstep.models.FullyConnected.maml] makes the paper's network.

    Args:
        inputs: the number of entries of an example, such as 28·28.
        ways: the number of classes of a task, which is the number of outputs.
        hidden: the width of each hidden layer.
        norm: a function from the number of channels to their normalisation. The default uses the statistics of the
            support set, so that an adapted network classifies one image as well as many;
            ``fewstep.models.norm_layer("batch")`` is the transductive normalisation of the MAML paper.

    Raises:
        ValueError: when it is called, the examples do not have ``inputs`` entries.

    Examples:
        >>> network = FullyConnected(28 * 28, ways=5)
        >>> network(torch.rand(10, 1, 28, 28)).shape
        torch.Size([10, 5])
    """

    def __init__(
        self,
        inputs: int,
        ways: int,
        hidden: Sequence[int] = (256, 128, 64, 64),
        norm: Callable[[int], nn.Module] = SupportNorm,
    ) -> None:
        super().__init__()
        check_whole("FullyConnected", inputs=inputs, ways=ways)
        check_widths("FullyConnected", empty=False, hidden=hidden)
        check_norm("FullyConnected", norm)
        self.inputs, self.features = inputs, hidden[-1]
        self.body = nn.Sequential(*(DenseBlock(i, o, norm(o)) for i, o in pairwise([inputs, *hidden])))
        self.head = nn.Linear(self.features, ways)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def maml(cls, ways: int, inputs: int = 28 * 28, norm: Policy = "support", steps: int = 1) -> FullyConnected:
        """Make the MAML paper's network: 256-128-64-64, norms with a shift but no scale and ε = 1e-3.

        The paper's code uses ``norm="batch"``, which normalises the query images together.

        Args:
            ways: the number of classes of a task.
            inputs: the number of entries of an example.
            norm: the normalisation policy; see [`norm_layer`][fewstep.models.norm_layer].
            steps: the number of inner steps in training, for ``norm="per_step"``.
        """
        return cls(inputs, ways, norm=norm_layer(norm, scale=False, eps=1e-3, steps=steps))

    def forward(self, x: Tensor) -> Float[Tensor, "examples ways"]:
        """Map ``[examples, ...]`` to logits ``[examples, ways]``."""
        return self.head(self.embed(x))

    def embed(self, x: Tensor) -> Float[Tensor, "examples features"]:
        """Compute the features before the head, ``[examples, features]``.

        Args:
            x: ``[examples, ...]`` with ``inputs`` entries per example.
        """
        if x.ndim < 2 or x[0].numel() != self.inputs:
            raise ValueError(
                f"FullyConnected expects examples of {self.inputs} numbers, [examples, ...]; got {list(x.shape)}."
            )
        return self.body(x.flatten(1))

    def encoder(self) -> nn.Sequential:
        """The network without its head, from examples to features; it shares the parameters."""
        return nn.Sequential(nn.Flatten(), self.body)
