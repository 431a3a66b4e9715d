"""The convolutional networks of the MAML paper (section 5.2 and appendix A.1) and of MAML++."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewstep.arguments import check_function, check_whole
from fewstep.models.images import Blocks, check_images, check_norm, normed
from fewstep.models.normalization import BatchNorm, Policy, RunningNorm, SupportNorm, norm_layer
from fewstep.models.second_order import convolve, max_pool


class ConvBlock(nn.Module):
    """A 3×3 convolution, normalisation, an activation, and half the resolution.

    The resolution is halved by 2×2 max-pooling or by a stride of 2. The convolution has a bias only without
    normalisation, which would cancel it. With the statistics of the batch or the support set, scale, shift and
    activation are applied after pooling, to a quarter of the data. The result is the same: the maximum commutes with
    increasing functions, and a channel with negative scale is convolved with negated weights.

    Args:
        in_channels: channels of the input.
        out_channels: the number of filters.
        norm: normalises ``out_channels`` channels, such as [`BatchNorm`][fewstep.models.BatchNorm].
        pool: whether to use max-pooling instead of a stride of 2.
        activation: must not decrease anywhere, like ReLU and leaky ReLU and unlike GELU, since pooling comes before it.

    Examples:
        >>> ConvBlock(3, 64, BatchNorm(64), pool=True)(torch.rand(10, 3, 28, 28)).shape
        torch.Size([10, 64, 14, 14])
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
        """Map ``[images, in_channels, height, width]`` to ``[images, out_channels, height/2, width/2]``.

        An odd size is rounded up with a stride and down with pooling.
        """
        norm = self.norm
        if self.pool and isinstance(norm, BatchNorm) and not isinstance(norm, RunningNorm):
            return self._pool_first(x, norm)
        x = convolve(x, self.weight, stride=1 if self.pool else 2)
        x = normed(norm, x if self.bias is None else x + self.bias.view(1, -1, 1, 1))
        return self.activation(max_pool(x) if self.pool else x)

    def _pool_first(self, x: Tensor, norm: BatchNorm) -> Tensor:
        scale, weight = norm.scale(), self.weight
        if scale is None:
            return self.activation(norm.scale_and_shift(norm.normalize_and_pool(convolve(x, weight))))
        sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
        x = norm.normalize_and_pool(convolve(x, weight * sign.view(-1, 1, 1, 1)), sign)
        return self.activation(norm.scale_and_shift(x * sign.view(1, -1, 1, 1)))


class Conv4(nn.Module):
    """Four convolution blocks and a linear head (Vinyals et al. 2016, section 4.1.1; MAML, section 5.2).

    ``body`` holds the blocks and ``head`` the linear layer, so that ``adapts="head.*"`` is ANIL. The class methods make
    the networks of the papers: [`omniglot`][fewstep.models.Conv4.omniglot] and
    [`mini_imagenet`][fewstep.models.Conv4.mini_imagenet] of MAML,
    [`maml_plus_plus`][fewstep.models.Conv4.maml_plus_plus] of MAML++.

    Args:
        in_channels: channels of the images.
        ways: the number of classes of a task, which is the number of outputs.
        filters: the number of filters of every block.
        image_size: height and width of the images, in pixels.
        pool: whether to halve the resolution by max-pooling instead of a stride of 2.
        spatial_mean: whether to average the last feature maps over their positions instead of flattening them.
        norm: a function from the number of channels to their normalisation. The default uses the statistics of the
            support set, so that an adapted network classifies one image as well as many;
            ``fewstep.models.norm_layer("batch")`` is the transductive normalisation of the MAML paper.
        activation: of every block; see [`ConvBlock`][fewstep.models.ConvBlock].

    Raises:
        ValueError: ``image_size`` is too small; or, when it is called, the images are not
            ``[images, in_channels, image_size, image_size]``.

    Examples:
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
        norm: Callable[[int], nn.Module] = SupportNorm,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        check_whole("Conv4", in_channels=in_channels, ways=ways, filters=filters, image_size=image_size)
        check_norm("Conv4", norm)
        check_function("Conv4", "a function of a tensor, such as torch.relu", activation=activation)
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
        cls, ways: int, filters: int = 64, norm: Policy = "support", steps: int = 1, in_channels: int = 1
    ) -> Conv4:
        """Make the MAML paper's network for Omniglot: stride 2, spatial mean, a head initialised from N(0, 1).

        The norms have a shift but no scale, and ε = 1e-3. The paper's code uses ``norm="batch"``, which normalises the
        query images together.

        Args:
            ways: the number of classes of a task.
            filters: the number of filters of every block.
            norm: the normalisation policy; see [`norm_layer`][fewstep.models.norm_layer].
            steps: the number of inner steps in training, for ``norm="per_step"``.
            in_channels: channels of the images, which are 28 × 28.
        """
        network = cls(in_channels, ways, filters, pool=False, spatial_mean=True, norm=_paper_norm(norm, steps))
        nn.init.normal_(network.head.weight)
        return network

    @classmethod
    def mini_imagenet(
        cls,
        ways: int,
        filters: int = 32,
        norm: Policy = "support",
        steps: int = 1,
        image_size: int = 84,
        in_channels: int = 3,
    ) -> Conv4:
        """Make the MAML paper's network for miniImageNet: max-pooling, flattened features.

        The norms have a shift but no scale, and ε = 1e-3. The paper's code uses ``norm="batch"``, which normalises the
        query images together.

        Args:
            ways: the number of classes of a task.
            filters: the number of filters of every block.
            norm: the normalisation policy; see [`norm_layer`][fewstep.models.norm_layer].
            steps: the number of inner steps in training, for ``norm="per_step"``.
            image_size: height and width of the images, in pixels.
            in_channels: channels of the images.
        """
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
        """Make the network of MAML++: leaky ReLU of slope 0.01, max-pooling, flattened features.

        It has 64 filters for Omniglot and 48 for miniImageNet, and a scale and a shift per inner step. Padding,
        ε = 1e-5 and initialisation (Xavier, zero biases) are those of the authors' code. Two things that do not affect
        the output are left out: their convolutions have biases, which batch normalisation cancels, and their norms keep
        running averages.

        Args:
            ways: the number of classes of a task.
            in_channels: channels of the images.
            image_size: height and width of the images, in pixels.
            filters: the number of filters of every block.
            norm: the normalisation policy; see [`norm_layer`][fewstep.models.norm_layer].
            steps: the number of inner steps in training, for ``norm="per_step"``.

        Examples:
            >>> Conv4.maml_plus_plus(5, in_channels=3, image_size=84, filters=48).features
            1200
        """
        made = norm_layer(norm, steps=steps)
        return cls(in_channels, ways, filters, image_size, norm=made, activation=functional.leaky_relu)

    def forward(self, images: Tensor) -> Float[Tensor, "images ways"]:
        """Map images ``[images, in_channels, image_size, image_size]`` to logits ``[images, ways]``."""
        return self.head(self.embed(images))

    def embed(self, images: Tensor) -> Float[Tensor, "images features"]:
        """Compute the features before the head, ``[images, features]``.

        Args:
            images: ``[images, in_channels, image_size, image_size]``.
        """
        check_images(images, self.in_channels, self.image_size, "Conv4")
        return self.features_of(self.body(images))

    def encoder(self) -> nn.Sequential:
        """The network without its head, from images to features; it shares the parameters."""
        return nn.Sequential(self.body, *([nn.AdaptiveAvgPool2d(1)] if self.spatial_mean else []), nn.Flatten())

    def features_of(self, maps: Float[Tensor, "images filters height width"]) -> Float[Tensor, "images features"]:
        """Compute the features from the maps of the last block.

        Args:
            maps: ``[images, filters, height, width]``.
        """
        return maps.mean((2, 3)) if self.spatial_mean else maps.flatten(1)


def _paper_norm(policy: Policy, steps: int) -> Callable[[int], nn.Module]:
    return norm_layer(policy, scale=False, eps=1e-3, steps=steps)
