"""What the convolutional networks share: checks of the images, and their memory format."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.arguments import check_function
from fewstep.models.normalization import BatchNorm


class Blocks(nn.Sequential):
    """A sequence of convolution blocks, whose input is converted to the channels-last memory format.

    That format is the fastest on CPUs and tensor cores.
    """

    def forward(
        self, images: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images filters newheight newwidth"]:
        """Map ``[images, channels, height, width]`` to the output of the last block."""
        if images.stride(1) != 1:
            images = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return super().forward(images)


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(x)``; under vmap, PyTorch's own norms need the channels-first memory format."""
    own = isinstance(norm, (BatchNorm, nn.Identity))
    return norm(x if own else x.clone(memory_format=torch.contiguous_format))


def check_norm(network: str, norm: Any) -> None:
    """Raise unless ``norm`` is a function from a number of channels to a module."""
    wanted = "a function from a number of channels to a module, such as fewstep.models.norm_layer('batch')"
    check_function(network, wanted, norm=norm)


def check_images(images: Tensor, in_channels: int, image_size: int, network: str) -> None:
    """Raise if images do not have the shape that a network was made for.

    Args:
        images: expected to be ``[images, in_channels, image_size, image_size]``.
        in_channels: channels of the images.
        image_size: height and width of the images, in pixels.
        network: the name of the network, for the message.

    Raises:
        ValueError: the images have another shape.
    """
    expected = (in_channels, image_size, image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        raise ValueError(
            f"{network} expects images [images, {', '.join(map(str, expected))}]; got {list(images.shape)}."
        )
