"""The command line's entry point: the allocator first, then the command."""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

COMMANDS = ("list", "train", "evaluate", "analyse", "plot", "reproduce", "data", "demo")
EPILOG = """\
commands:
  list        the experiments, one line each, with the paper's numbers
  train       train an experiment:  fewstep train sinusoid-5shot-maml --iterations 1000
              or go on with a run:  fewstep train --resume runs/sinusoid-5shot-maml-seed0
  evaluate    test a run, and write its results.json
  analyse     measure what adaptation changes: freezing, similarity of layers, NIL
  plot        draw a run's learning curve and figures
  reproduce   train and test every row of a paper's table, and set ours beside it
  data        the data sets, and what of them is here;  fewstep data download omniglot
  demo        meta-learn sine waves in about a minute, and look at the picture

Each command has its own --help."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the ``fewstep`` command."""
    began = time.monotonic() - (_age() if arguments is None else 0.0)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        words = _choose_allocator(words)
        _run(words, began)
    except KeyboardInterrupt as interrupt:
        print(f"\n{interrupt or 'Interrupted.'}", file=sys.stderr)
        sys.exit(128 + int(getattr(interrupt, "signal", 2)))
    except BrokenPipeError:
        sys.exit(0)
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        if os.environ.get("FEWSTEP_TRACEBACK"):
            raise
        print(f"fewstep: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        sys.exit(1)


def _age() -> float:
    """Seconds since this process was started, which include being started anew for an allocator; 0 if not known."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError, IndexError):
        return 0.0
    return age if 0 < age < 60 else 0.0  # more is no start but a clock of another kind


def _run(words: list[str], began: float) -> None:
    if not words or words[0] in ("-h", "--help"):
        print("usage: fewstep [--allocator NAME] COMMAND ...\n")
        print("Meta-learning by gradient descent: MAML and its family.\n")
        print(EPILOG)
        print(
            "\noptions:\n"
            "  --allocator NAME   memory allocator: auto (the default: tcmalloc where installed, else tuned glibc),\n"
            "                     tcmalloc, glibc, or default (leave the system's as it is)\n"
            "  --version          print the version\n"
            "  -h, --help         print this"
        )
    elif words[0] == "--version":
        import fewstep

        print(f"fewstep {fewstep.__version__}")
    else:
        if words[0] not in COMMANDS:
            near = difflib.get_close_matches(words[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no command {words[0]!r}.{hint} The commands are {', '.join(COMMANDS)}.")
        import_module(f"fewstep.cli.{words[0]}").main(words[1:], began)


def _choose_allocator(words: list[str]) -> list[str]:
    """Sets the allocator, which may start this program anew, and takes its option out."""
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
    if (
        words
        and words[0] in ("train", "reproduce", "evaluate", "analyse", "demo", "plot")
        and not {"-h", "--help"} & set(words)
    ):
        from fewstep import allocator

        allocator.restart_with(choice)
    return words
