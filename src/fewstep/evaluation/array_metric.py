"""Metrics of NumPy arrays, such as those of scikit-learn, as metrics of a model and a batch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fewstep.arguments import check_function
from fewstep.learner.checks import is_number
from fewstep.tasks import Batch


class array_metric:  # noqa: N801 - reads as a function where it is used, beside accuracy
    """Turns a function of the arrays (targets, predictions) into a metric of (model, batch).

    scikit-learn's metrics take their arguments in this order (``y_true``, ``y_pred``). The function runs outside of
    vmap, on the query set of one task at a time; adaptation is the same as for any other metric.

    Padded examples (weight 0) are left out.

    Args:
        function: called with targets and predictions as NumPy arrays; returns a number.
        predict: a function of the model's output that gives the predictions. If omitted, predictions are the classes
            with the largest logits where targets are integers ``[examples]`` and the output is ``[examples, classes]``,
            else the output itself. Metrics of probabilities need ``lambda logits: logits.softmax(-1)``.
        **options: keyword arguments that are passed on to ``function``, such as ``average="macro"``.

    Raises:
        TypeError: ``function`` is not callable or is already a metric of (model, batch); when measuring: it does not
            return a number, or the model's output or the targets are not a tensor.
        ValueError: when measuring: an example has a weight other than 0 and 1, which the function would not see.

    Examples:
        >>> import numpy as np, fewstep as fs
        >>> def median_error(targets, predictions):
        ...     return np.median(np.abs(targets - predictions))
        >>> learner = fs.maml(fs.models.MLP(1, [8], 1), fs.mse, inner_lr=0.01)
        >>> result = fs.evaluate(learner, fs.tasks.Sinusoids(), num_tasks=20, metric=fs.array_metric(median_error))
        >>> result.metric, result.values.shape
        ('median_error', torch.Size([20, 2]))
    """

    def __init__(
        self, function: Callable[..., Any], predict: Callable[[Tensor], Tensor] | None = None, **options: Any
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"array_metric: expected a function of arrays (targets, predictions); got {type(function).__name__}."
            )
        if predict is not None:
            check_function("array_metric", "a function of the model's output", predict=predict)
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        if _first_parameter(function) == "model":
            raise TypeError(f"array_metric: {self.__name__} is already a metric of (model, batch). Pass it as metric=.")
        self.function, self.predict = functools.partial(function, **options), predict

    def __call__(self, model: Callable[[Any], Tensor], batch: Batch) -> float:
        """The metric of one batch.

        Args:
            model: called with ``batch.x``.
            batch: ``y`` holds the targets, ``[examples, ...]``.
        """
        if not isinstance(batch, Batch):
            raise TypeError(f"array_metric expects a fewstep.Batch(x, y); got {type(batch).__name__}.")
        output, targets = model(batch.x), batch.y
        for name, value in (("the model's output", output), ("batch.y", targets)):
            if not isinstance(value, Tensor):
                raise TypeError(f"array_metric: {name} must be a tensor; got {type(value).__name__}.")
        predictions = self._predictions(output.detach(), targets)
        if batch.weight is not None:
            if not bool(((batch.weight == 0) | (batch.weight == 1)).all()):
                raise ValueError(
                    f"array_metric: {self.__name__} cannot honour weights other than 0 (padding) and 1. Write a metric "
                    "of (model, batch) that uses batch.weight."
                )
            present = batch.weight == 1
            targets, predictions = targets[present], predictions[present]
        value = self.function(_array(targets), _array(predictions))
        if not is_number(value):
            shape = f" of shape {value.shape}" if hasattr(value, "shape") else ""
            raise TypeError(
                f"array_metric: {self.__name__} must return a number; got {type(value).__name__}{shape}. Pass options "
                'that reduce it, such as average="macro", or reduce it in a function of your own.'
            )
        return float(value)

    def _predictions(self, output: Tensor, targets: Tensor) -> Tensor:
        if self.predict is not None:
            return self.predict(output)
        classes = targets.ndim == 1 and not targets.is_floating_point() and output.ndim == 2
        return output.argmax(-1) if classes else output


def _array(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _first_parameter(function: Callable[..., Any]) -> str | None:
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except (TypeError, ValueError):  # a function without a signature that Python can read
        return None
