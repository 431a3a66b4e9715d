"""Stand-ins: copies of a module that compute with other tensors in place of its parameters.

``torch.func.functional_call`` writes other tensors into the module and restores its parameters when the call returns.
If the module is called again later, as activation checkpointing does in the backward pass, it computes with its own
parameters. A stand-in is a separate object that holds its tensors as long as it exists, so it may be called at any time
and from any thread. What a forward pass assigns to ``self`` is assigned to the stand-in; the module is never modified.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

Tensors = Mapping[int, Tensor]
"""The tensors to compute with, by ``id`` of the parameter or buffer that each replaces."""

ORIGIN = "_stands_for"
REGISTRIES = ("_parameters", "_buffers", "_modules")


def stand_in(
    module: Module, tensors: Tensors, training: bool | None = None, known: dict[int, Any] | None = None
) -> Module:
    """Make an object of the module's class with the same attributes and other tensors.

    Sub-modules are replaced by stand-ins too. A module or parameter that is reachable in several ways remains one
    object: under two names, in a list, or through a ``forward``, hook or function that holds a reference to it.

    Args:
        module: the module, which is not modified.
        tensors: by ``id`` of the parameter or buffer that each replaces; all other parameters and buffers are shared.
        training: the mode of every module; ``None`` keeps their modes.
        known: existing stand-ins of sub-modules, by ``id``, which are used; new ones are added.

    Examples:
        >>> import torch
        >>> line = nn.Linear(1, 1, bias=False)
        >>> twice = stand_in(line, {id(line.weight): torch.tensor([[2.0]])})
        >>> twice(torch.ones(1, 1)).item(), type(twice).__name__
        (2.0, 'Linear')
    """
    known = {} if known is None else known
    made: list[nn.Module] = []
    found = _stand_in(module, tensors, training, known, made)
    changed: dict[int, Any] = {**tensors, **known}
    for new in made:
        _rebind(new, changed)
    return found


def origin(module: nn.Module) -> nn.Module:
    """The module that a stand-in replaces; any other module itself."""
    found: nn.Module = module.__dict__.get(ORIGIN, module)
    return found


def own_copy(objects: Any) -> Any:
    """A deep copy of modules, and of objects that hold modules, without references to the originals.

    ``copy.deepcopy`` does not copy functions: a ``forward`` or a hook that is a closure over a module, such as a lambda
    over ``self``, would still call the original. Tensors that a forward pass stored in a module are copied without
    their graph.

    Raises:
        TypeError: an object cannot be copied; the message gives the reason.
    """
    originals = [module for each in objects if isinstance(each, nn.Module) for module in each.modules()]
    memo: dict[int, Any] = {}
    note_live_tensors(originals, memo)
    try:
        copies = copy.deepcopy(objects, memo)
    except Exception as error:
        raise TypeError(
            f"The learner works on a copy of the model, and copy.deepcopy failed: {error}. Give the object that cannot "
            "be copied a __deepcopy__, or keep it outside of the module."
        ) from error
    rebind_copies(memo)
    return copies


def note_live_tensors(modules: Iterable[nn.Module], memo: dict[int, Any]) -> None:
    """Add detached copies of tensors that a forward pass stored in modules to a ``memo`` of ``copy.deepcopy``."""
    for module in modules:
        for value in _leaves(module.__dict__):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = left = value.detach().clone()
                left.left_over = True  # type: ignore[attr-defined]


def rebind_copies(memo: Mapping[int, Any]) -> None:
    """Make functions held by the modules in a ``memo`` of ``copy.deepcopy`` refer to the copies."""
    changed = {key: value for key, value in memo.items() if isinstance(value, (nn.Module, Tensor))}
    for module in {id(m): m for m in changed.values() if isinstance(m, nn.Module)}.values():
        _rebind(module, changed)


def _rebind(module: nn.Module, changed: Mapping[int, Any]) -> None:
    """Make the attributes of a module refer to the objects in ``changed``."""
    for name, value in module.__dict__.items():
        if type(value) not in _PLAIN and name not in _NEVER and not _is_empty(value):
            bound = rebound(value, changed)
            if bound is not value:
                module.__dict__[name] = bound


def rebound(value: Any, changed: Mapping[int, Any], made: dict[int, Any] | None = None) -> Any:
    """``value`` with objects replaced by those that ``changed`` holds for their ``id``.

    Searches dictionaries, lists, tuples, sets, methods, partial functions, closures and defaults of functions, and
    other callable objects. Returns ``value`` itself if nothing is replaced.
    """
    made = {} if made is None else made
    key = id(value)
    if key in changed:
        return changed[key]
    if key in made:
        return made[key]
    kind = type(value)
    if kind in _PLAIN or isinstance(value, (type, types.ModuleType, Tensor, nn.Module)):
        return value
    made[key] = value  # inside a cycle, the object itself
    inner = functools.partial(rebound, changed=changed, made=made)
    found = value
    if isinstance(value, dict):
        items = {name: inner(item) for name, item in value.items()}
        if any(items[name] is not value[name] for name in value):
            found = copy.copy(value)
            found.update(items)
    elif kind in (list, tuple, set):
        members = [inner(item) for item in value]
        if any(new is not old for new, old in zip(members, value, strict=True)):
            found = kind(members)
    elif kind is types.MethodType:
        owner = inner(value.__self__)
        found = value if owner is value.__self__ else types.MethodType(value.__func__, owner)
    elif kind is types.FunctionType:
        found = _function(value, inner)
    elif isinstance(value, functools.partial):
        held = value.func, value.args, value.keywords, value.__dict__
        parts = [inner(part) for part in held]
        if any(new is not old for new, old in zip(parts, held, strict=True)):
            found = functools.partial(parts[0], *parts[1], **parts[2])
            found.__dict__.update(parts[3])
    elif callable(value) and isinstance(getattr(value, "__dict__", None), dict):
        attributes = inner(value.__dict__)
        found = value if attributes is value.__dict__ else copy.copy(value)
        if found is not value:
            found.__dict__.update(attributes)
    made[key] = found
    return found


def _function(value: types.FunctionType, inner: Callable[[Any], Any]) -> types.FunctionType:
    """A function with the same code, whose closure and defaults hold other objects."""
    cells = value.__closure__ or ()
    contents = [_content(cell) for cell in cells]
    parts = [*contents, value.__defaults__, value.__kwdefaults__, value.__dict__ or None]
    bound = [inner(part) for part in parts]
    if all(new is old for new, old in zip(bound, parts, strict=True)):
        return value
    closure = tuple(
        cell if new is old else types.CellType(new) for cell, new, old in zip(cells, bound, contents, strict=False)
    )
    *_, defaults, keyword_defaults, attributes = bound
    found = types.FunctionType(value.__code__, value.__globals__, value.__name__, defaults, closure or None)
    found.__kwdefaults__ = keyword_defaults
    found.__dict__.update(attributes or {})
    return found


def _stand_in(
    module: Any, tensors: Tensors, training: bool | None, known: dict[int, Any], made: list[nn.Module]
) -> Any:
    found = known.get(id(module))
    if found is not None:
        return found
    if type(module).__module__.startswith("torch._dynamo"):  # made by torch.compile; it uses its own parameters
        found = known[id(module)] = _stand_in(module._orig_mod, tensors, training, known, made)
        return found
    found = known[id(module)] = object.__new__(type(module))
    made.append(found)
    attributes = found.__dict__
    attributes.update(module.__dict__)
    attributes[ORIGIN] = module.__dict__.get(ORIGIN, module)
    attributes["_compiled_call_impl"] = None  # would use the parameters of the module
    if training is not None:
        attributes["training"] = training
    for name, value in module.__dict__.items():
        if type(value) in _CONTAINERS and name not in _OF_ALL:  # additions by forward stay on the stand-in
            attributes[name] = value.copy()
    for registry in ("_parameters", "_buffers"):
        held = attributes[registry]
        if held:
            attributes[registry] = {name: tensors.get(id(value), value) for name, value in held.items()}
    held = attributes["_modules"]
    if held:
        attributes["_modules"] = {
            name: None if part is None else _stand_in(part, tensors, training, known, made)
            for name, part in held.items()
        }
    return found


def _is_empty(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple, set)) and not value


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the cell is empty
        return None


def _leaves(value: Any, depth: int = 3) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)) and depth:
        for item in value:
            yield from _leaves(item, depth - 1)
    else:
        yield value


_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), types.BuiltinFunctionType))
_CONTAINERS = frozenset((dict, list, set))
_OF_ALL = frozenset(nn.Module().__dict__)
_NEVER = frozenset((*REGISTRIES, ORIGIN))
