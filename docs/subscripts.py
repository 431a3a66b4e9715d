"""Formulas in docstrings are text, such as φ_{k+1}: the site shows what follows the underscore as a subscript.

MkDocs calls ``on_page_content`` (see ``hooks`` in mkdocs.yml). Code is left as it is.
"""

from __future__ import annotations

import re
from typing import Any

KEPT = re.compile(r"(<pre\b.*?</pre>|<code\b.*?</code>|<[^>]*>)", re.DOTALL)
SUBSCRIPT = re.compile(r"(?<=[\wΑ-ω̂‖∇Σ∏])_(?:\{([^{}]+)\}|([0-9A-Za-z])(?!\w))")


def on_page_content(html: str, **_: Any) -> str:
    """The page with subscripts."""
    parts = KEPT.split(html)
    parts[::2] = [SUBSCRIPT.sub(lambda found: f"<sub>{found[1] or found[2]}</sub>", text) for text in parts[::2]]
    return "".join(parts)
