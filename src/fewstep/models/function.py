"""A module made from a function of a dictionary of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.arguments import check_function, named_tensors


class Function(nn.Module):
    """A module made from ``function(params, x)``, for models that are not an ``nn.Module``.

    Args:
        function: a function of a dictionary of tensors and the inputs.
        params: the initial parameters, which are copied. Names must not contain a dot.

    Raises:
        KeyError: a name contains a dot.

    Examples:
        >>> import torch
        >>> line = Function(lambda p, x: p["slope"] * x, {"slope": torch.tensor(2.0)})
        >>> line(torch.tensor(3.0)).item()
        6.0
    """

    def __init__(self, function: Callable[..., Any], params: Mapping[str, Tensor]) -> None:
        super().__init__()
        check_function("Function", "a function of (params, x)", function=function)
        params = named_tensors("Function", params=params)
        self.function = function
        self.names = list(params)
        for name, value in params.items():
            value = value.detach().clone()
            self.register_parameter(name, nn.Parameter(value, requires_grad=torch.is_floating_point(value)))

    def forward(self, *args: Any) -> Any:
        return self.function({name: getattr(self, name) for name in self.names}, *args)
