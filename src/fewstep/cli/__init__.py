"""The command line: a file for each command, with its options."""

from fewstep.cli.entry import main

__all__ = ["main"]
