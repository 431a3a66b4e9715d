"""Writes the reproduction tables and figures into README.md and docs/ from the committed results.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. With ``--check`` nothing is written: tables are
compared, and of figures it is only asked whether they are there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from fewstep.experiments import few_shot_tables as few_shot
from fewstep.experiments import tables
from fewstep.experiments.reproduction_figures import figures_of
from fewstep.experiments.results import TABLES, RowResults, load_results
from fewstep.experiments.tables import Rows, error_table

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FIGURES = DOCS / "figures"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

Results = dict[str, RowResults]
"""Results by experiment, of one table or several."""


def sinusoid_5shot(found: Results) -> Rows:
    """The paper's Table 2."""
    return error_table({name: result for name, result in found.items() if result.row.config.shots == 5})


def sinusoid_shots(found: Results) -> Rows:
    """Figure 3 as numbers: the 10-shot models tested with 5, 10 and 20 points."""
    header = ["trained with 10 points", *(f"K = {k}, {s} step{'s' * (s > 1)}" for k in (5, 10, 20) for s in (1, 10))]
    rows = [
        [name, *(f"{result.after(s, k)[0]:.3f}" for k in (5, 10, 20) for s in (1, 10))]
        for name, result in found.items()
        if result.row.config.shots == 10
    ]
    return [header, *rows]


def sinusoid_seeds(found: Results) -> Rows:
    """How much the seeds differ: lowest and highest mean of a single run."""
    header = ["experiment", "seeds", "1 step, lowest – highest", "10 steps, lowest – highest"]
    rows = []
    for name, result in found.items():
        if len(result.seeds) > 1:
            spans = ["{:.3f} – {:.3f}".format(*result.seed_range(step)) for step in (1, 10)]
            rows.append([name, ", ".join(map(str, result.seeds)), *spans])
    return [header, *rows]


def images_in_short(found: Results) -> Rows:
    """Rows of the papers with their number that were trained for at least a tenth, in fewer columns."""

    def shown(result: RowResults) -> bool:
        config = result.row.config
        return bool(result.row.paper) and 10 * result.training_tasks >= config.iterations * config.tasks_per_iteration

    header, *rows = few_shot.of_the_papers({name: one for name, one in found.items() if shown(one)})
    kept = [header.index(name) for name in ("experiment", "ours", "paper", "seeds", "iterations")]
    return [[row[i] for i in kept] for row in (header, *rows)]


TABLE: dict[str, tuple[tuple[str, ...], Callable[[Results], Rows]]] = {
    "sinusoid-5shot": (("sinusoid",), sinusoid_5shot),
    "sinusoid-all": (("sinusoid",), error_table),
    "sinusoid-shots": (("sinusoid",), sinusoid_shots),
    "sinusoid-seeds": (("sinusoid",), sinusoid_seeds),
    "images-in-short": (("omniglot", "mini-imagenet"), images_in_short),
    "omniglot": (("omniglot",), few_shot.of_the_papers),
    "omniglot-budget": (("omniglot",), few_shot.at_equal_budget),
    "omniglot-ablation": (("omniglot",), few_shot.ablation),
    "omniglot-policies": (("omniglot", "mini-imagenet"), few_shot.policies),
    "mini-imagenet": (("mini-imagenet",), few_shot.of_the_papers),
    "navigation": (("navigation",), tables.return_table),
    "robots": (("cheetah", "ant"), tables.return_table),
}
"""From the name of a table to the results that it is made of, and how."""


def results_of(data: str) -> Path:
    """Where results are committed."""
    return ROOT / "reproduction" / data


def table(name: str) -> str:
    """A table in Markdown."""
    of, make = TABLE[name]
    return tables.markdown(make({k: found for data in of for k, found in load_results(results_of(data), data).items()}))


def figure(name: str, title: str, prefix: str) -> str:
    """A link to a figure, or a line that says that there is none yet."""
    file = FIGURES / f"{name}.png"
    return f"![{title}]({prefix}figures/{file.name})\n" if file.is_file() else "No results yet.\n"


def filled(page: Path) -> str:
    """A page with its tables and links to figures made anew."""
    prefix = "../" * (len(page.relative_to(DOCS).parts) - 1) if page.is_relative_to(DOCS) else "docs/"
    makers: dict[str, Callable[[re.Match[str]], str]] = {
        "table": lambda found: table(found[2]),
        "figure": lambda found: figure(found[2], found[3].strip(), prefix),
    }

    def made(found: re.Match[str]) -> str:
        return f"<!-- {found[1]}: {found[2]}{found[3]} -->\n{makers[found[1]](found)}<!-- end -->"

    pattern = r"<!-- (table|figure): (\S+)(.*?) -->\n.*?<!-- end -->"
    return re.sub(pattern, made, page.read_text(), flags=re.DOTALL)


def main() -> None:
    """Fills the pages, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date, and write nothing")
    check = parser.parse_args().check
    if not check:
        for data in TABLES:
            for file in figures_of(data, load_results(results_of(data), data), results_of(data), FIGURES):
                print(f"Drew {file.relative_to(ROOT)}")
    stale = [page for page in PAGES if filled(page) != page.read_text()]
    if check and stale:
        sys.exit(f"Out of date: {', '.join(str(page.relative_to(ROOT)) for page in stale)}. Run: make tables")
    for page in stale:
        page.write_text(filled(page))
        print(f"Wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
