"""Convolution, batch normalisation and max-pooling whose second derivatives take few and fast kernels.

PyTorch takes the derivative of their gradients apart into dozens of elementwise operations, which is most of the time
of a meta-gradient of a convolutional network. All have closed forms made of the kernels of the gradient itself.
"""

from fewstep.models.second_order.convolution import convolve
from fewstep.models.second_order.normalization import normalize, normalize_and_pool
from fewstep.models.second_order.pooling import max_pool

__all__ = ["convolve", "max_pool", "normalize", "normalize_and_pool"]
