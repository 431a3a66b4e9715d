"""Convolution, batch normalisation and max-pooling with closed-form second derivatives, which take few kernels.

PyTorch computes the derivatives of their gradients with dozens of elementwise operations, which take most of the time
of a meta-gradient of a convolutional network. The closed forms use the kernels of the first derivatives.
"""

from fewstep.models.second_order.convolution import convolve
from fewstep.models.second_order.normalization import normalize, normalize_and_pool
from fewstep.models.second_order.pooling import max_pool

__all__ = ["convolve", "max_pool", "normalize", "normalize_and_pool"]
