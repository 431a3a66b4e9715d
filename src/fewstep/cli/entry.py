"""The entry point of the command line: it chooses the allocator, then runs the command."""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

COMMANDS = {
    "list": "list the experiments, with the paper's numbers",
    "train": "train an experiment, or resume a run",
    "evaluate": "evaluate a run on test tasks, and write its results.json",
    "analyse": "measure what adaptation changes: frozen blocks, similarity of layers, NIL",
    "plot": "draw the learning curve and the figures of a run",
    "report": "write one HTML file about one or several runs",
    "reproduce": "train and evaluate the rows of a paper's table, and print ours beside it",
    "data": "show the data sets, or download Omniglot",
    "demo": "meta-learn sine waves in about two minutes, and draw the result",
}
"""Each command, a module of this package with `main(words, began)`, and its summary."""

SHARED = ("train", "evaluate", "analyse")
"""Commands whose work the processes of torchrun share."""

USAGE = """\
usage: fewstep [--allocator NAME] COMMAND ...

Meta-learning by gradient descent: MAML and its family.

commands:
{commands}

options:
  --allocator NAME  memory allocator: auto (the default: tcmalloc where installed, otherwise tuned glibc),
                    tcmalloc, glibc, or default (that of the system, unchanged)
  --version         print the version
  -h, --help        show this help and exit

`fewstep COMMAND --help` shows the options of a command. Start with `fewstep demo` or `fewstep list`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; the entry point of `fewstep`.

    Args:
        arguments: the words after `fewstep`; those of the process if not given.
    """
    began = time.monotonic() - (_age() if arguments is None else 0.0)
    words = list(sys.argv[1:] if arguments is None else arguments)
    rank = _rank()
    if rank > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the first process prints
    try:
        words = _choose_allocator(words)
        _run(words, began)
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'Interrupted.'}", file=sys.stderr)
        sys.exit(128 + int(getattr(interrupt, "signal", 2)))
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if os.environ.get("FEWSTEP_TRACEBACK"):
            raise
        from fewstep.cli.errors import described

        print(described(error), file=sys.stderr)
        sys.exit(1)


def _age() -> float:
    """Seconds since this process started, including a restart for the allocator; 0 if not known."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError, IndexError):
        return 0.0
    return age if 0 < age < 60 else 0.0  # a larger value comes from a clock of another kind


def _rank() -> int:
    """The number of this process among those of torchrun."""
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0


def _run(words: list[str], began: float) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(USAGE.format(commands="\n".join(f"  {name:<16}  {summary}" for name, summary in COMMANDS.items())))
    elif words[0] == "--version":
        import fewstep

        print(f"fewstep {fewstep.__version__}")
    else:
        if words[0] not in COMMANDS:
            near = difflib.get_close_matches(words[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no command {words[0]!r}.{hint} The commands are {', '.join(COMMANDS)}.")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and words[0] not in SHARED:
            raise ValueError(
                f"{words[0]} runs in one process; got {os.environ['WORLD_SIZE']} from torchrun. The processes of "
                f"torchrun share {', '.join(SHARED)}."
            )
        import_module(f"fewstep.cli.{words[0]}").main(words[1:], began)


def _choose_allocator(words: list[str]) -> list[str]:
    """Sets the allocator, which may restart this program. Returns the words without its option."""
    choice = "auto"
    for index, word in enumerate(words):
        if word == "--allocator":
            if index + 1 == len(words):
                raise ValueError("--allocator needs a name: auto, tcmalloc, glibc or default.")
            choice, words = words[index + 1], words[:index] + words[index + 2 :]
            break
        if word.startswith("--allocator="):
            choice, words = word.partition("=")[2], words[:index] + words[index + 1 :]
            break
    from fewstep import allocator

    if choice not in allocator.NAMES:
        raise ValueError(f"--allocator must be one of {', '.join(allocator.NAMES)}; got {choice!r}.")
    if (
        words
        and words[0] in ("train", "reproduce", "evaluate", "analyse", "demo", "plot", "report")
        and not {"-h", "--help"} & set(words)
    ):
        allocator.restart_with(choice)
    return words
