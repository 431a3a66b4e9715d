"""The networks of few-shot experiments, by name."""

from __future__ import annotations

from typing import Literal, get_args

from fewstep.models import Conv4, FullyConnected, ResNet12, norm_layer
from fewstep.models.normalization import Policy

Network = Literal["paper", "flat", "no-conv", "maml++", "resnet12"]
AnyNetwork = Conv4 | FullyConnected | ResNet12


def network(
    name: Network, channels: int, size: int, ways: int, filters: int, norm: Policy, steps: int, extra_channels: int = 0
) -> AnyNetwork:
    """A network for images.

    Args:
        name: which one.
        channels: colour channels of the images.
        size: height and width of the images.
        ways: number of classes.
        filters: filters of every convolution, where the widths are not fixed.
        norm: whose statistics normalise.
        steps: inner steps in training, for per-step norms.
        extra_channels: channels of the input in addition to those of the images.
    """
    inputs = channels + extra_channels
    match name:
        case "paper" if channels == 1:
            return Conv4.omniglot(ways, filters, norm, steps, inputs)
        case "paper":
            return Conv4.mini_imagenet(ways, filters, norm, steps, size, inputs)
        case "flat":
            return Conv4(inputs, ways, filters, size, pool=size > 28, norm=norm_layer(norm, steps=steps))
        case "no-conv":
            return FullyConnected.maml(ways, inputs * size**2, norm, steps)
        case "maml++":
            return Conv4.maml_plus_plus(ways, inputs, size, filters, norm, steps)
        case "resnet12":
            return ResNet12(inputs, ways, image_size=size, norm=norm_layer(norm, steps=steps))
    raise ValueError(f"There is no network {name!r}; there are {list(get_args(Network))}.")


def four_convolutions(model: AnyNetwork, method: str) -> Conv4:
    """The network, if it is one of four convolutions.

    Raises:
        ValueError: it is of another kind.
    """
    if not isinstance(model, Conv4):
        raise ValueError(
            f"The method {method!r} needs a network of four convolutions; got a {type(model).__name__}. "
            "Choose the network 'paper', 'flat' or 'maml++'."
        )
    return model
