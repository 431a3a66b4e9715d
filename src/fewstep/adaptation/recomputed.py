"""Inner steps that are recomputed in the backward pass: the gradient and the update.

Only the parameters and the rule's state at the start of a step are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from fewstep.adaptation.inner_loop import Loss, gradient_and_value, partial_gradient
from fewstep.adaptation.random_numbers import recorded
from fewstep.adaptation.recomputation import RecomputationContext, RecomputedTensors, UnchangedCheck
from fewstep.adaptation.rules import Params, Rule
from fewstep.pytorch import keeps_through_hooks, transforms
from fewstep.tasks.trees import Rebuild, split


def recomputed_gradient(
    loss: Loss,
    params: Params,
    names: Sequence[str],
    batch: Any,
    mode: str = "reverse",
    without_forward_mode: Callable[[], None] = lambda: None,
) -> tuple[Params, Tensor]:
    """A gradient function that keeps only its inputs for the backward pass.

    Args:
        loss: ``loss(params, batch)`` gives a scalar.
        params: all parameters by name.
        names: names of the parameters to differentiate with respect to.
        batch: the support set.
        mode: ``"reverse"`` or ``"forward"``; see [`Recomputed`][fewstep.Recomputed].
        without_forward_mode: called if an operation has no forward-mode derivative; reverse mode is then used.

    Returns:
        ∇_names L(params; batch), and L.

    Examples:
        >>> loss = lambda params, x: (params["w"] * x).square()
        >>> recomputed_gradient(loss, {"w": torch.tensor(3.0)}, ["w"], torch.tensor(1.0))
        ({'w': tensor(6.)}, tensor(9.))
    """
    return RecomputedStep(mode, without_forward_mode)(loss, params, names, batch)


class RecomputedStep:
    """One inner step: its gradient and its update.

    The backward pass of an update needs the gradient, and tensors that the update computed. With plain autograd both
    are recomputed, and the graph of the gradient is then used for its own backward pass, which follows. Forward mode
    has no such graph, so the gradient is kept.

    Args:
        mode: ``"reverse"`` or ``"forward"``; see [`Recomputed`][fewstep.Recomputed].
        without_forward_mode: called if an operation has no forward-mode derivative.
        unchanged: the check of what loss and rule read, shared by all steps; ``None`` checks what the loss reads.
    """

    def __init__(
        self,
        mode: str,
        without_forward_mode: Callable[[], None] = lambda: None,
        unchanged: UnchangedCheck | None = None,
    ) -> None:
        self.mode, self.without_forward_mode, self.unchanged = mode, without_forward_mode, unchanged

    def __call__(self, loss: Loss, params: Params, names: Sequence[str], batch: Any) -> tuple[Params, Tensor]:
        """∇_names L and L."""
        self._leaves, rebuild = split((params, batch))
        unchanged = self.unchanged or UnchangedCheck.of(loss)
        self._call = _Call(loss, tuple(names), rebuild, self.mode, self.without_forward_mode, unchanged)
        *grads, value = _RecomputedGradient.apply(self._call, *self._leaves)
        return dict(zip(names, grads, strict=True)), value

    def update(
        self, rule: Rule, params: Params, grads: Params, state: Any, step: int, loss: Tensor
    ) -> tuple[Params, Any]:
        """The rule's update, with the gradient that was just computed."""
        if transforms() or recorded() or not torch.is_grad_enabled():
            return rule.update(params, grads, state, step, loss)
        context, inputs_unchanged = RecomputationContext(), UnchangedCheck(tensors=split((params, state))[0])

        def updated_again(grads: Params) -> None:
            self._call.unchanged.check()
            inputs_unchanged.check()
            with context.restored():
                rule.update(params, grads, state, step, loss)

        gradients = self._gradients
        if self.mode == "forward" or not loss.requires_grad:
            kept = {name: gradient.detach() for name, gradient in grads.items()}
            gradients = lambda: kept  # noqa: E731
        with RecomputedTensors(updated_again, gradients):
            return rule.update(params, grads, state, step, loss)

    def _gradients(self) -> Params:
        with self._call.context.restored():
            grads = self._call.graph(self._leaves)[1]
        return {name: gradient.detach() for name, gradient in zip(self._call.names, grads, strict=True)}


class _Call:
    """The function whose gradient is taken, except for its tensors."""

    def __init__(
        self,
        loss: Loss,
        names: tuple[str, ...],
        rebuild: Rebuild,
        mode: str,
        without_forward_mode: Callable[[], None],
        unchanged: UnchangedCheck,
    ) -> None:
        self.loss, self.names, self.rebuild, self.mode = loss, names, rebuild, mode
        self.without_forward_mode = without_forward_mode
        self.context, self.unchanged = RecomputationContext(), unchanged
        self._graph: tuple[list[Tensor], list[Tensor], Tensor] | None = None

    def value(self, leaves: Sequence[Tensor]) -> Tensor:
        params, batch = self.rebuild(list(leaves))
        return self.loss(params, batch)

    def graph(self, leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Inputs, gradients and value with their graph, in plain autograd; kept until ``taken_graph`` is called.

        Call it in the context of the forward pass.
        """
        if self._graph is None:
            inputs = [leaf.detach().requires_grad_(leaf.requires_grad) for leaf in leaves]
            params = self.rebuild(inputs)[0]
            moved = [params[name].requires_grad_() for name in self.names]
            with torch.enable_grad():
                value = self.value(inputs)
                grads = torch.autograd.grad(value, moved, create_graph=True, materialize_grads=True)
            self._graph = inputs, list(grads), value
        return self._graph

    def taken_graph(self, leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The result of ``graph``, which is not kept any longer."""
        graph, self._graph = self.graph(leaves), None
        return graph


class _RecomputedGradient(torch.autograd.Function):
    """Forward g = ∇_φ L(φ, η); backward (w, u) ↦ ∂/∂(φ, η) of ⟨w, g⟩ + u·L.

    This is one backward pass through the gradient. By symmetry of second derivatives it is also the derivative of the
    full gradient ∇_{φ,η} L in the direction (w, 0), a forward-mode product, plus u times the full gradient. η is
    everything else that needs a gradient: parameters that are not adapted, a learned loss, the batch.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(call: _Call, *leaves: Tensor) -> tuple[Tensor, ...]:
        params, batch = call.rebuild([leaf.detach() for leaf in leaves])
        grads, value = gradient_and_value(call.loss, params, call.names, batch)
        return (*(grads[name].detach() for name in call.names), value.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        call, leaves = ctx.call, list(ctx.saved_tensors)
        positions = call.rebuild(list(range(len(leaves))))[0]
        *directions, value_cotangent = cotangents
        direction = {positions[name]: w for name, w in zip(call.names, directions, strict=True)}
        wanted = [i for i, leaf in enumerate(leaves) if i in direction or ctx.needs_input_grad[i + 1]]

        found = _products(call, leaves, wanted, direction, value_cotangent)
        result: list[Tensor | None] = [None] * len(leaves)
        for i, value in zip(wanted, found, strict=True):
            result[i] = value
        return None, *result


def _products(
    call: _Call, leaves: Sequence[Tensor], wanted: Sequence[int], direction: dict[int, Tensor], value_cotangent: Tensor
) -> list[Tensor]:
    def products(mode: str) -> list[Tensor]:
        product = _PRODUCTS[mode, bool(transforms())]
        if torch.is_grad_enabled() and not transforms():
            raise NotImplementedError(
                "Recomputed gives no derivative of the meta-gradient if tasks are evaluated in a loop. Use Unrolled()."
            )
        with call.context.restored():
            return list(product(call, leaves, wanted, direction, value_cotangent))

    call.unchanged.check()
    if call.mode == "forward":
        try:
            return products("forward")
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # an operation has no forward-mode derivative; any other error occurs in reverse mode too
            call.without_forward_mode()
    return products("reverse")


def _by_dual_numbers(
    call: _Call, leaves: Sequence[Tensor], wanted: Sequence[int], direction: dict[int, Tensor], value_cotangent: Tensor
) -> Iterable[Tensor]:
    """The products as a forward-mode derivative of the full gradient, with plain autograd."""
    with torch.enable_grad(), forward_ad.dual_level(), _ConstantTangents():
        inputs = [leaf.detach().requires_grad_(i in wanted) for i, leaf in enumerate(leaves)]
        for i, tangent in direction.items():
            inputs[i] = forward_ad.make_dual(inputs[i], tangent.detach())
        value = call.value(inputs)
        wanted_inputs = [inputs[i] for i in wanted]
        gradient = torch.autograd.grad(value, wanted_inputs, materialize_grads=True)
        duals = [forward_ad.unpack_dual(dual) for dual in gradient]
    gradients = [(g.detach(), None if hw is None else hw.detach()) for g, hw in duals]
    return [value_cotangent * g if hw is None else hw + value_cotangent * g for g, hw in gradients]


class _ConstantTangents(TorchFunctionMode):
    """A context that keeps autograd's graph of an operation but drops that of its tangent, which is not differentiated.

    Not applied inside checkpoints and other hooks on saved tensors, which must save the same tensors again.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        if isinstance(result, Tensor) and result.requires_grad and not keeps_through_hooks():
            tangent = forward_ad.unpack_dual(result).tangent
            if tangent is not None and tangent.requires_grad and not tangent._is_view():
                tangent.detach_()
        return result


def _by_jvp(
    call: _Call, leaves: Sequence[Tensor], wanted: Sequence[int], direction: dict[int, Tensor], value_cotangent: Tensor
) -> Iterable[Tensor]:
    """The products as a forward-mode derivative, under a ``torch.func`` transform such as vmap."""
    full_gradient = partial_gradient(call.value, leaves, wanted, len(wanted))
    primals = tuple(leaves[i] for i in wanted)
    tangents = tuple(direction.get(i, torch.zeros_like(leaves[i])) for i in wanted)
    gradient, product = torch.func.jvp(full_gradient, primals, tangents)[:2]
    return (hw + value_cotangent * g for g, hw in zip(gradient, product, strict=True))


def _by_vjp(
    call: _Call, leaves: Sequence[Tensor], wanted: Sequence[int], direction: dict[int, Tensor], value_cotangent: Tensor
) -> Iterable[Tensor]:
    """The products as the derivative of ⟨w, g⟩ + u·L, under a ``torch.func`` transform such as vmap."""
    order = [*direction, *(i for i in wanted if i not in direction)]

    def of_places(*replaced: Tensor) -> Tensor:
        merged = list(leaves)
        for place, tensor in zip(order, replaced, strict=True):
            merged[place] = tensor
        return call.value(merged)

    gradient_and_value = torch.func.grad_and_value(of_places, argnums=tuple(range(len(direction))))
    cotangents = tuple(direction.values()), value_cotangent
    found = torch.func.vjp(gradient_and_value, *(leaves[i] for i in order))[1](cotangents)
    products = dict(zip(order, found, strict=True))
    return (products[i] for i in wanted)


def _by_second_backward(
    call: _Call, leaves: Sequence[Tensor], wanted: Sequence[int], direction: dict[int, Tensor], value_cotangent: Tensor
) -> Iterable[Tensor]:
    """The products by a second backward pass, with plain autograd."""
    inputs, grads, value = call.taken_graph(leaves)
    pairs = zip([*grads, value], [*direction.values(), value_cotangent], strict=True)
    outputs, cotangents = zip(*((out, w) for out, w in pairs if out.requires_grad), strict=True)  # skips constants
    return torch.autograd.grad(outputs, [inputs[i] for i in wanted], cotangents, materialize_grads=True)


_PRODUCTS: dict[tuple[str, bool], Callable[..., Iterable[Tensor]]] = {
    ("reverse", False): _by_second_backward,
    ("reverse", True): _by_vjp,
    ("forward", False): _by_dual_numbers,
    ("forward", True): _by_jvp,
}
"""By mode, and whether a ``torch.func`` transform is active."""
