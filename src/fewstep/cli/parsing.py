"""Options of a command from the words after it."""

from __future__ import annotations

from typing import Any

import tyro


def parse(kind: Any, command: str, words: list[str]) -> Any:
    """The options, an instance of the data class ``kind``."""
    return tyro.cli(kind, prog=f"fewstep {command}", args=words)
