"""Writes the reproduction tables into README.md and docs/ from the committed results; ``--check`` only compares.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from fewstep.experiments.reproduce import Found, load_results, markdown, table_rows

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sinusoid_5shot(found: dict[str, Found]) -> str:
    """The paper's Table 2."""
    return markdown(table_rows({name: result for name, result in found.items() if "-5shot-" in name}))


def sinusoid_all(found: dict[str, Found]) -> str:
    """Every sinusoid run."""
    return markdown(table_rows(found))


def sinusoid_shots(found: dict[str, Found]) -> str:
    """Figure 3 as numbers: the 10-shot models tested with 5, 10 and 20 points."""
    header = ["trained with 10 points", *(f"K = {k}, {s} step{'s' * (s > 1)}" for k in (5, 10, 20) for s in (1, 10))]
    rows = [
        [name, *(f"{result.at(s, k)[0]:.3f}" for k in (5, 10, 20) for s in (1, 10))]
        for name, result in found.items()
        if "-10shot-" in name
    ]
    return markdown([header, *rows])


def sinusoid_seeds(found: dict[str, Found]) -> str:
    """How much the seeds differ: lowest and highest mean of a single run."""
    header = ["experiment", "seeds", "1 step, lowest – highest", "10 steps, lowest – highest"]
    rows = []
    for name, result in found.items():
        if len(result.seeds) > 1:
            spans = ["{:.3f} – {:.3f}".format(*result.seed_range(step)) for step in (1, 10)]
            rows.append([name, ", ".join(map(str, result.seeds)), *spans])
    return markdown([header, *rows])


TABLES: dict[str, tuple[str, Callable[[dict[str, Found]], str]]] = {
    "sinusoid-5shot": ("sinusoid", sinusoid_5shot),
    "sinusoid-all": ("sinusoid", sinusoid_all),
    "sinusoid-shots": ("sinusoid", sinusoid_shots),
    "sinusoid-seeds": ("sinusoid", sinusoid_seeds),
}


def filled(text: str) -> str:
    """A page with its tables made anew."""

    def table(match: re.Match[str]) -> str:
        data, make = TABLES[match[1]]
        return f"<!-- table: {match[1]} -->\n{make(load_results(ROOT / 'reproduction' / data, data))}<!-- end -->"

    return re.sub(r"<!-- table: (\S+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> None:
    """Fills the pages, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date, and write nothing")
    check = parser.parse_args().check
    stale = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    if check and stale:
        sys.exit(f"Out of date: {', '.join(str(page.relative_to(ROOT)) for page in stale)}. Run: make tables")
    for page in stale:
        page.write_text(filled(page.read_text()))
        print(f"Wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
