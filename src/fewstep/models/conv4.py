"""The convolutional networks of the MAML paper (section 5.2 and appendix A.1) and of MAML++."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewstep.models.images import Blocks, check_images, normed
from fewstep.models.normalization import BatchNorm, Policy, RunningNorm, SupportNorm, norm_layer
from fewstep.models.second_order import convolve, max_pool


class ConvBlock(nn.Module):
    """3×3 convolution, normalisation, ReLU or leaky ReLU, and half the resolution by a stride of 2 or 2×2 max-pooling.

    The convolution has a bias only where there is no normalisation, which would take it out again. After batch
    statistics, scale, shift and activation come after the pooling, where there is a quarter of the data. This is exact:
    the maximum commutes with whatever grows, and a channel whose scale is negative is convolved with its weights
    negated.

    Args:
        in_channels: channels of the input.
        out_channels: filters.
        norm: normalises ``out_channels`` channels, such as :class:`fewstep.models.BatchNorm`.
        pool: max-pooling, else a stride of 2.
        activation: a function that nowhere falls, as ReLU and leaky ReLU, and unlike GELU: pooling comes before it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: nn.Module,
        pool: bool,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if isinstance(norm, nn.Identity) else None
        self.norm, self.pool, self.activation = norm, pool, activation
        nn.init.xavier_uniform_(self.weight)

    def forward(
        self, x: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images filters newheight newwidth"]:
        """``[images, in_channels, height, width]`` to ``[images, out_channels, height/2, width/2]``.

        An odd size is rounded up with a stride and down with pooling.
        """
        norm = self.norm
        keeps_statistics = isinstance(norm, (SupportNorm, RunningNorm))
        if self.pool and isinstance(norm, BatchNorm) and not keeps_statistics:
            return self._pool_first(x, norm)
        x = convolve(x, self.weight, stride=1 if self.pool else 2)
        x = normed(norm, x if self.bias is None else x + self.bias.view(1, -1, 1, 1))
        return self.activation(max_pool(x) if self.pool else x)

    def _pool_first(self, x: Tensor, norm: BatchNorm) -> Tensor:
        scale, weight = norm.scale(), self.weight
        if scale is None:
            return self.activation(norm.scale_and_shift(norm.normalize_and_pool(convolve(x, weight))))
        sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
        x = norm.normalize_and_pool(convolve(x, weight * sign.view(-1, 1, 1, 1)))
        return self.activation(norm.scale_and_shift(x * sign.view(1, -1, 1, 1)))


class Conv4(nn.Module):
    """Four convolution blocks and a linear head, the backbone of few-shot classification since Vinyals et al. (2016).

    ``body`` holds the blocks and ``head`` the linear layer, so that ``adapts="head.*"`` is ANIL. The networks of the
    MAML paper are :meth:`omniglot` and :meth:`mini_imagenet`, and MAML++'s is :meth:`maml_plus_plus`.

    Args:
        in_channels: of the images.
        ways: classes of a task, the outputs.
        filters: of every block.
        image_size: height and width.
        pool: halve the resolution by max-pooling, else by a stride of 2.
        spatial_mean: average the last feature maps over their positions, else flatten them.
        norm: from the number of channels to their normalisation, such as ``fewstep.models.norm_layer("support")``.
        activation: of every block; see :class:`ConvBlock`.

    Raises:
        ValueError: images come that are not ``[images, in_channels, image_size, image_size]``.

    >>> network = Conv4(in_channels=1, ways=5)
    >>> network(torch.rand(10, 1, 28, 28)).shape
    torch.Size([10, 5])
    """

    def __init__(
        self,
        in_channels: int,
        ways: int,
        filters: int = 64,
        image_size: int = 28,
        pool: bool = True,
        spatial_mean: bool = False,
        norm: Callable[[int], nn.Module] = BatchNorm,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.in_channels, self.image_size, self.spatial_mean = in_channels, image_size, spatial_mean
        inputs = [in_channels, filters, filters, filters]
        blocks = (ConvBlock(channels, filters, norm(filters), pool, activation) for channels in inputs)
        self.body = Blocks(*blocks)
        size = image_size
        for _ in inputs:
            size = size // 2 if pool else (size + 1) // 2
        if size < 1:
            raise ValueError(
                f"Conv4 halves the resolution four times: images of {image_size} are too small; 16 is enough."
            )
        self.features = filters if spatial_mean else filters * size**2
        self.head = nn.Linear(self.features, ways)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def omniglot(
        cls, ways: int, filters: int = 64, norm: Policy = "batch", steps: int = 1, in_channels: int = 1
    ) -> Conv4:
        """The MAML paper's network for Omniglot: stride 2, spatial mean, a head that starts from N(0, 1).

        A shift but no scale, ε = 1e-3, and by default the statistics of the batch, as in the paper's code. ``steps`` is
        that of :func:`fewstep.models.norm_layer`.
        """
        network = cls(in_channels, ways, filters, pool=False, spatial_mean=True, norm=_paper_norm(norm, steps))
        nn.init.normal_(network.head.weight)
        return network

    @classmethod
    def mini_imagenet(
        cls,
        ways: int,
        filters: int = 32,
        norm: Policy = "batch",
        steps: int = 1,
        image_size: int = 84,
        in_channels: int = 3,
    ) -> Conv4:
        """The MAML paper's network for miniImageNet: max-pooling, flattened features; norms as for Omniglot."""
        return cls(in_channels, ways, filters, image_size, norm=_paper_norm(norm, steps))

    @classmethod
    def maml_plus_plus(
        cls,
        ways: int,
        in_channels: int = 1,
        image_size: int = 28,
        filters: int = 64,
        norm: Policy = "per_step",
        steps: int = 5,
    ) -> Conv4:
        """MAML++'s network: leaky ReLU of slope 0.01, max-pooling, flattened features, a scale and a shift per step.

        It has 64 filters for Omniglot and 48 for miniImageNet. Padding, ε = 1e-5 and initialisation (Xavier, zero
        biases) are those of the authors' code. Their convolutions have biases, which the batch's statistics take out
        again, and their norms keep running averages, which no output depends on; here there are neither.

        ``steps`` is that of :func:`fewstep.models.norm_layer`: the inner steps in training.

        >>> Conv4.maml_plus_plus(5, in_channels=3, image_size=84, filters=48).features
        1200
        """
        made = norm_layer(norm, steps=steps)
        return cls(in_channels, ways, filters, image_size, norm=made, activation=functional.leaky_relu)

    def forward(self, images: Tensor) -> Float[Tensor, "images ways"]:
        """``[images, in_channels, image_size, image_size]`` to logits ``[images, ways]``."""
        return self.head(self.embed(images))

    def embed(self, images: Tensor) -> Float[Tensor, "images features"]:
        """The features before the head, ``[images, features]``."""
        check_images(images, self.in_channels, self.image_size, "Conv4")
        return self.features_of(self.body(images))

    def encoder(self) -> nn.Sequential:
        """The network without its head, images to features; it shares the parameters."""
        return nn.Sequential(self.body, *([nn.AdaptiveAvgPool2d(1)] if self.spatial_mean else []), nn.Flatten())

    def features_of(self, maps: Float[Tensor, "images filters height width"]) -> Float[Tensor, "images features"]:
        """The features of the last block's maps, ``[images, features]``."""
        return maps.mean((2, 3)) if self.spatial_mean else maps.flatten(1)


def _paper_norm(policy: Policy, steps: int) -> Callable[[int], nn.Module]:
    return norm_layer(policy, scale=False, eps=1e-3, steps=steps)
