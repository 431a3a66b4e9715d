"""Matplotlib figures as SVG within a page: text stays text, and colours follow the page's light or dark colours."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import Any

from fewstep.figures.style import COLOURS, GREY

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_VARIABLES = {colour: f"var(--series-{number})" for number, colour in enumerate(COLOURS)} | {
    GREY: "var(--muted)",
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
}
_READABLE = 0.72
"""Pictures do not become smaller than this share of their size; they scroll where there is less room."""


def svg(drawn: Any, label: str, prefix: str) -> str:
    """A figure as an ``<svg>`` element.

    Args:
        drawn: a Matplotlib figure.
        label: what it shows, for screen readers.
        prefix: begins its identifiers, which must be unique in a page.
    """
    import matplotlib

    written = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        drawn.savefig(
            written,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    root = ET.fromstring(written.getvalue())
    _drop_styles(root)
    for element in root.iter():
        _adapt(element, prefix)
    width = float(root.attrib.pop("width").removesuffix("pt")) * 4 / 3  # in CSS pixels
    for name in ("height", "version"):
        root.attrib.pop(name, None)
    root.set("style", f"width: {width:.0f}px; min-width: {_READABLE * width:.0f}px")
    root.set("role", "img")
    root.set("aria-label", label)
    return ET.tostring(root, encoding="unicode")


def _drop_styles(root: ET.Element) -> None:
    """Without what would apply to the whole page, and without metadata."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)


def _adapt(element: ET.Element, prefix: str) -> None:
    element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    for name, value in list(element.attrib.items()):
        if name == "id":
            element.set("id", f"{prefix}-{value}")
        elif name == f"{{{_XLINK}}}href":
            del element.attrib[name]
            element.set("href", f"#{prefix}-{value[1:]}" if value.startswith("#") else value)
        else:
            value = re.sub(r"url\(#", f"url(#{prefix}-", value)
            value = re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), value)
            element.set(name, re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", value))
