"""The README as a package index shows it: with absolute links, since an index has none of the repository's files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?!https?://|mailto:|#)(?P<path>[^)\s]+)\)")


def for_an_index(readme: str, repository: str | None) -> str:
    """The README with absolute links and images; without a repository's address, with the texts of the links only.

    Args:
        readme: in Markdown, with paths relative to the root of the repository.
        repository: its address, as in ``project.urls``.
    """

    def absolute(found: re.Match[str]) -> str:
        image, text, path = found["image"], found["text"], found["path"]
        if repository is None:
            return "" if image else text
        return f"{image}[{text}]({repository.rstrip('/')}/{'raw' if image else 'blob'}/main/{path})"

    return RELATIVE.sub(absolute, readme)


class IndexReadme(MetadataHookInterface):
    """Sets ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the ``project`` table of pyproject.toml."""
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = for_an_index(readme, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
