"""The folder of the user's data."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path:
    """The folder of the data sets: the environment variable ``FEWSTEP_DATA``, or ``data`` in the current folder.

    Examples:
        >>> isinstance(data_root(), Path)
        True
    """
    return Path(os.environ.get("FEWSTEP_DATA", "data"))
