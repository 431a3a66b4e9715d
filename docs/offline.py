"""The site loads nothing from elsewhere: a page with a script, style, font or image of another server fails the build.

MkDocs calls ``on_post_page`` (see ``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import re
from typing import Any

LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc\s*=\s*["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?=[^>]*\brel\s*=\s*["']?(?:stylesheet|preload|preconnect|icon))[^>]*\bhref\s*=\s*["']?(?:https?:)?//[^>]*>""",
    re.IGNORECASE,
)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The page, unchanged."""
    if found := LOADED.search(output):
        from mkdocs.exceptions import PluginError

        raise PluginError(f"{page.file.src_uri} loads something from another server: {found[0]}")
    return output
