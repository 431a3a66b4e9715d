"""Tables on the terminal."""

from __future__ import annotations


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Prints a table, its first column in full."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    print(title)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
