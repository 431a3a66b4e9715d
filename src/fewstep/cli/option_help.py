"""Help texts: the strings below the fields of a data class."""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap
from dataclasses import MISSING, is_dataclass
from typing import Any


def help_of(kind: type) -> dict[str, str]:
    """The string below each field of a data class and of those that it inherits from, in one line each.

    Examples:
        >>> from fewstep.experiments.training import Training
        >>> help_of(Training)["seed"]
        'Seed of the initial weights and of all meta-batches.'
    """
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                texts[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return texts


def described(kind: type) -> str:
    """The first paragraph of a class's docstring."""
    return (inspect.getdoc(kind) or "").partition("\n\n")[0]


def filled(text: str) -> str:
    """Paragraphs broken to the width of the terminal; those with indented lines stay as they are."""
    width = min(100, shutil.get_terminal_size().columns) - 2
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(each if "\n " in each else textwrap.fill(each, width) for each in paragraphs)


def shown_default(text: str, default: Any) -> str:
    """The help text with the default, where there is one that says something."""
    if default is MISSING or default is None or default == () or default is False:
        return text
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    return f"{text} Default: {'on' if default is True else default}."
