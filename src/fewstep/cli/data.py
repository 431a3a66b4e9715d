"""``fewstep data``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fewstep.cli.parsing import parse
from fewstep.cli.tables import print_table


@dataclass(frozen=True)
class Download:
    """Fetch a data set's official files, check them, and go on where an earlier attempt was cut off."""

    dataset: tyro.conf.Positional[Literal["omniglot"]]
    """Which data set."""
    root: Path | None = None
    """The folder of the data sets; the environment variable FEWSTEP_DATA, or data, if not given."""


def main(words: list[str], began: float) -> None:
    """Runs the command with the words that follow it."""
    from fewstep import datasets
    from fewstep.datasets.catalogue import catalogue
    from fewstep.datasets.download import download_omniglot

    if words and words[0] == "download":
        options = parse(Download, "data download", words[1:])
        for line in download_omniglot(options.root or datasets.data_root()):
            print(line)
    elif words and words[0] in ("-h", "--help"):
        print("usage: fewstep data\n       fewstep data download omniglot [--root PATH]\n")
        print("Show the data sets and what of them is here, or fetch Omniglot's official files.")
    elif words:
        raise ValueError(
            f"there is no `data {words[0]}`; there are `fewstep data` and `fewstep data download omniglot`."
        )
    else:
        root = datasets.data_root()
        header = ["data set", "classes: train, validation, test", "images", "here", "where from"]
        print_table(f"Data sets in {root.resolve()} (FEWSTEP_DATA names another folder)", header, catalogue(root))
        print("Your own images: fewstep.datasets.from_folder and from_dataset.")
