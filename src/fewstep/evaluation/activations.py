"""The outputs of the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def activations(model: nn.Module, layers: Sequence[str], x: Any) -> dict[str, Tensor]:
    """Compute the outputs of some modules of a model, without gradients.

    The outputs of a module that is called several times are concatenated along the first axis.

    Args:
        model: the model, which is called once with ``x``.
        layers: the names of modules, as in ``model.named_modules()``.
        x: the inputs.

    Returns:
        The output of each layer by name.

    Raises:
        ValueError: a name is not that of a module, or the module is not called in ``forward``.
        TypeError: the output of a module is not a tensor.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> {name: tuple(value.shape) for name, value in activations(model, ["0", "2"], torch.rand(5, 2)).items()}
        {'0': (5, 3), '2': (5, 1)}
    """
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise ValueError(f"The model has no module {unknown}; it has {[name for name in modules if name]}.")
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(f"Module {name} returns a {type(output).__name__}; choose one that returns a tensor.")
            found[name].append(output.clone())  # later modules may write into it

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    silent = [name for name, outputs in found.items() if not outputs]
    if silent:
        raise ValueError(f"The model does not call its module(s) {silent} in forward, so they have no output.")
    return {name: torch.cat(outputs) for name, outputs in found.items()}
