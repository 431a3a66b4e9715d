"""Tables on the terminal."""

from __future__ import annotations

from fewstep.files import printable


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Prints a table, its first column in full."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(text: str) -> Text:
        return Text(printable(text))  # not markup, which names from files could hold

    table = Table(box=box.SIMPLE_HEAD)
    for title_of_column in header:
        table.add_column(cell(title_of_column))
    for row in rows:
        table.add_row(*map(cell, row))
    print(printable(title))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
