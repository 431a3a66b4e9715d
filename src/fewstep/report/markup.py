"""HTML that is escaped by construction: whatever is not made by `element` is text."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fewstep.files import printable


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Html:
    """An element with its children; children that are not markup are escaped, and so are the attributes.

    Underscores in the names of attributes stand for hyphens, and one at the end is dropped; ``None`` leaves one out.

    Examples:
        >>> element("p", "a < b", element("br"), class_="note")
        '<p class="note">a &lt; b<br></p>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(printable(str(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in ("br", "img", "meta", "link"):
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(children: Iterable[object]) -> Html:
    """Markup and text one after the other."""
    return Html("".join(child if isinstance(child, Html) else escape(printable(str(child))) for child in children))


def table(header: list[object], rows: list[list[object]], **attributes: object) -> Html:
    """A table whose cells know the title of their column, so that narrow screens can show each row as a list."""
    head = element("tr", *(element("th", cell, scope="col") for cell in header))
    body = [
        element(
            "tr",
            element("th", first, scope="row"),
            *(element("td", cell, data_label=title) for title, cell in zip(header[1:], rest, strict=True)),
        )
        for first, *rest in rows
    ]
    return element("table", element("thead", head), element("tbody", *body), **attributes)
