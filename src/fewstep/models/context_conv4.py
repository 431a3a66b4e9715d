"""Convolutional networks with context parameters, for algorithms that adapt only these."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.arguments import check_module, check_whole
from fewstep.models.conv4 import Conv4


class ContextConv4(nn.Module):
    """Conv4 with context parameters that scale and shift the feature maps of its third block (FiLM).

    Scale and shift are a linear function of ``context``, which [`cavia`][fewstep.cavia] adapts (Zintgraf et al. 2019,
    section 4 and appendix).

    Args:
        network: the convolutional network.
        filters: the number of filters of its third block.
        size: the number of context parameters.

    Examples:
        >>> ContextConv4(Conv4(in_channels=1, ways=5), filters=64)(torch.rand(10, 1, 28, 28)).shape
        torch.Size([10, 5])
    """

    def __init__(self, network: Conv4, filters: int, size: int = 100) -> None:
        super().__init__()
        if not isinstance(network, Conv4):
            raise TypeError(f"ContextConv4: network must be a fewstep.models.Conv4; got {type(network).__name__}.")
        check_whole("ContextConv4", filters=filters, size=size)
        self.network = network
        self.context = nn.Parameter(torch.zeros(size))
        self.film = nn.Linear(size, 2 * filters)

    def forward(self, images: Tensor) -> Float[Tensor, "images ways"]:
        """Map images ``[images, channels, height, width]`` to logits ``[images, ways]``."""
        scale, shift = self.film(self.context).view(2, 1, -1, 1, 1)
        first, second, third, fourth = self.network.body
        maps = third(second(first(images)))
        return self.network.head(self.network.features_of(fourth(maps * (1 + scale) + shift)))


class ContextChannel(nn.Module):
    """A network with context parameters that are an additional input channel (MAML, appendix C.2).

    In the paper's comparison only ``context`` is adapted, and all parameters are learned.

    Args:
        network: a network for images with one more channel.
        image_size: height and width of the images, in pixels.

    Examples:
        >>> ContextChannel(Conv4(in_channels=2, ways=5), image_size=28)(torch.rand(10, 1, 28, 28)).shape
        torch.Size([10, 5])
    """

    def __init__(self, network: nn.Module, image_size: int) -> None:
        super().__init__()
        check_module("ContextChannel", network=network)
        check_whole("ContextChannel", image_size=image_size)
        self.network = network
        self.context = nn.Parameter(torch.zeros(1, image_size, image_size))

    def forward(self, images: Tensor) -> Float[Tensor, "images ways"]:
        """Map images ``[images, channels, height, width]`` to logits ``[images, ways]``."""
        logits: Tensor = self.network(torch.cat([images, self.context.expand(len(images), -1, -1, -1)], 1))
        return logits
