"""A command's options from a data class: a field is an option, and the text below it is its help."""

from __future__ import annotations

import argparse
import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any, NoReturn, TypeVar, get_type_hints

from fewstep.cli.option_help import described, filled, help_of, shown_default
from fewstep.cli.option_values import Argument, Value, marks, value_of
from fewstep.experiments.option_types import NotAnOption

T = TypeVar("T")


def parse(
    kind: type[T], command: str, words: Sequence[str], defaults: T | None = None, description: str | None = None
) -> T:
    """Reads the words after a command.

    A field whose default is another data class is a group of options.

    Args:
        kind: the data class.
        command: the words before, without the program's name.
        words: the words after the command.
        defaults: an instance whose values are the defaults; those of the data class if not given.
        description: what the command does; the data class's docstring if not given.

    Returns:
        An instance of the data class.

    Raises:
        SystemExit: a word is wrong, or help was asked for.
    """
    parser = _Parser(
        prog=f"fewstep {command}",
        add_help=False,
        allow_abbrev=False,
        description=filled(inspect.getdoc(kind) or "" if description is None else description),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments, general = parser.add_argument_group("arguments"), parser.add_argument_group("options")
    build = _add_fields(kind, defaults, parser, arguments, general)
    general.add_argument("-h", "--help", action="help", help="Show this help and exit.")
    given, unknown = parser.parse_known_args(list(words))
    if unknown:
        parser.refuse(unknown[0])
    made: T = build(given)
    return made


class _Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest option where a name is wrong."""

    def format_usage(self) -> str:
        return f"usage: {self.prog} {' '.join([*self._places(), '[options]'])}\n"

    def format_help(self) -> str:
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        for group in self._action_groups:
            if any(action.help is not argparse.SUPPRESS for action in group._group_actions):
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(group._group_actions)
                formatter.end_section()
        return f"{self.format_usage()}\n{formatter.format_help()}"

    def _places(self) -> list[str]:
        places = [action for action in self._actions if not action.option_strings]
        return [f"[{action.metavar}]" if action.nargs == "?" else str(action.metavar) for action in places]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\nSee {self.prog} --help\n")

    def refuse(self, word: str) -> NoReturn:
        """Ends with an error about a word that is no option."""
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}.")
        name = word.partition("=")[0]
        names = [name for action in self._actions for name in action.option_strings]
        near = difflib.get_close_matches(name, names, n=1)
        self.error(f"there is no option {name}." + (f" Did you mean {near[0]}?" if near else ""))


class _Switch(argparse.Action):
    """`--name` and `--no-name`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, not str(option_string).startswith("--no-"))


def _add_fields(
    kind: Any, defaults: Any, parser: argparse.ArgumentParser, arguments: Any, group: Any, path: str = ""
) -> Callable[[argparse.Namespace], Any]:
    """Adds the options of a data class; returns what makes an instance of it from the words that were read."""
    hints, texts = get_type_hints(kind, include_extras=True), help_of(kind)
    groups: dict[str, Callable[[argparse.Namespace], Any]] = {}
    names = []
    for field in fields(kind):
        hint, place = hints[field.name], f"{path}{field.name}"
        default = _default_of(field) if defaults is None else getattr(defaults, field.name)
        if NotAnOption in marks(hint):
            continue
        if is_dataclass(default):
            title = f"{field.name.replace('_', ' ')} options"
            inner = parser.add_argument_group(title, filled(texts.get(field.name) or described(type(default))))
            groups[field.name] = _add_fields(type(default), default, parser, arguments, inner, f"{place}.")
            continue
        names.append(field.name)
        text = shown_default(texts.get(field.name, ""), default).replace("%", "%%")
        value = value_of(hint)
        if Argument in marks(hint):
            _add_argument(arguments, place, value, text, default)
        else:
            _add_option(group, field.name, place, value, text, default)

    def build(given: argparse.Namespace) -> Any:
        read = {name: getattr(given, f"{path}{name}") for name in names if hasattr(given, f"{path}{name}")}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}
        values |= {name: make(given) for name, make in groups.items()}
        return kind(**values) if defaults is None else replace(defaults, **values)

    return build


def _default_of(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _add_argument(group: Any, dest: str, value: Value, text: str, default: Any) -> None:
    group.add_argument(
        dest, type=value.read, metavar=dest.upper(), help=text, default=argparse.SUPPRESS,
        nargs="+" if value.several else None if default is MISSING else "?",
    )  # fmt: skip


def _add_option(group: Any, name: str, dest: str, value: Value, text: str, default: Any) -> None:
    option, negative = f"--{name.replace('_', '-')}", f"--no-{name.replace('_', '-')}"
    common: dict[str, Any] = {"dest": dest, "default": argparse.SUPPRESS}
    if value.switch and default is True:
        group.add_argument(option, negative, action=_Switch, nargs=0, help=text, **common)
    elif value.switch:
        group.add_argument(option, action=_Switch, nargs=0, help=text, **common)
        group.add_argument(negative, action=_Switch, nargs=0, help=argparse.SUPPRESS, **common)
    else:
        group.add_argument(
            option, type=value.read, metavar=value.shown or name.upper(), help=text, required=default is MISSING,
            nargs="+" if value.several else None, **common,
        )  # fmt: skip
