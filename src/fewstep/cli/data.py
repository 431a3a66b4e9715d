"""``fewstep data``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fewstep.cli.option_values import Argument
from fewstep.cli.parsing import parse
from fewstep.cli.tables import print_table


@dataclass(frozen=True)
class Data:
    """Show the data sets, and which of them are present.

    `fewstep data download omniglot` downloads the official files of Omniglot.
    """


@dataclass(frozen=True)
class Download:
    """Download the official files of a data set and check them. An interrupted download is resumed.

    Example:
        fewstep data download omniglot
    """

    dataset: Annotated[Literal["omniglot"], Argument]
    """The data set: omniglot."""
    root: Path | None = None
    """The folder of the data sets. If not given, that of the environment variable FEWSTEP_DATA, or data."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it.

    Raises:
        ValueError: there is no such command of `fewstep data`.
    """
    if words and words[0] == "download":
        download(parse(Download, "data download", words[1:]))
    elif words and not words[0].startswith("-"):
        raise ValueError(
            f"there is no command `data {words[0]}`. The commands are `fewstep data` and "
            "`fewstep data download omniglot`."
        )
    else:
        parse(Data, "data", words)
        show()


def download(options: Download) -> None:
    """Downloads the files and prints their names."""
    from fewstep import datasets
    from fewstep.datasets.download import download_omniglot

    for line in download_omniglot(options.root or datasets.data_root()):
        print(line)


def show() -> None:
    """Prints a table of the data sets."""
    from fewstep import datasets
    from fewstep.datasets.catalogue import catalogue

    root = datasets.data_root()
    header = ["data set", "classes: train, validation, test", "images", "files", "source"]
    print_table(f"Data sets in {root.resolve()} (set FEWSTEP_DATA for another folder)", header, catalogue(root))
    print("For your own images: fewstep.datasets.from_folder and from_dataset.")
