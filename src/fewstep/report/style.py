"""The style sheet of a report."""

from fewstep.figures.style import COLOURS

_DARK = ("#58a6e0", "#f07f8c", "#5cc46c", "#b794e0", "#f0ab4c", "#a3abb8", "#3cc9c3", "#d08a66")


def _series(colours: tuple[str, ...]) -> str:
    return " ".join(f"--series-{number}: {colour};" for number, colour in enumerate(colours))


STYLE = (
    f"""
:root {{ color-scheme: light dark; --ink: #1c2128; --paper: #ffffff; --panel: #f6f7f9; --line: #d8dce2;
  --muted: #5d6570; --accent: #0f6fb5; --note: #fff6df; {_series(COLOURS)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e4e7ec; --paper: #14171c; --panel: #1d2128; --line: #363c46;
  --muted: #a0a8b4; --accent: #6db5ea; --note: #33290f; {_series(_DARK)} }} }}
"""
    + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.75rem 0 .25rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .4rem 0; }
a { color: var(--accent); }
.muted, figcaption { color: var(--muted); font-size: .9rem; }
.note { background: var(--note); border-radius: 6px; padding: .5rem .8rem; margin: .75rem 0; list-style: none; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.facts div { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .5rem .75rem; }
.facts dt { color: var(--muted); font-size: .8rem; }
.facts dd { margin: 0; font-weight: 600; }
.pictures { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure svg, figure img { display: block; max-width: 100%; height: auto; }
figure img { background: #fff; border-radius: 4px; }
svg { fill: var(--ink); color: var(--ink); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; list-style: none; padding: 0; margin: .75rem 0; }
.legend span { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .45em; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--muted); font-weight: 500; }
tbody th { font-weight: 600; }
td, table.wide th { overflow-wrap: anywhere; }
table.wide th { min-width: 9.5rem; }
.scroll { overflow-x: auto; }
footer { margin-top: 3rem; }
table.steps { width: auto; min-width: min(100%, 24rem); }
table.values { max-width: 40rem; }
table.values th { width: 45%; }
table.values tr:last-child > * { border-bottom: 0; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem;
  overflow-x: auto; }
code { font: .9em/1.45 ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", Menlo, monospace; }
pre code { overflow-wrap: normal; }
details { margin: .75rem 0; }
summary { cursor: pointer; font-weight: 600; }
.settings { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 2rem; }
@media (max-width: 42rem) {
  table.wide thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.wide, table.wide tbody, table.wide tr, table.wide td, table.wide th { display: block; }
  table.wide tr { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; padding: .3rem .7rem; }
  table.wide td, table.wide th { border: 0; padding: .15rem 0; }
  table.wide td { display: flex; justify-content: space-between; gap: 1rem; text-align: right; }
  table.wide td::before { content: attr(data-label); color: var(--muted); text-align: left; }
}
@media print { body { max-width: none; } details:not([open]) > * { display: block; } }
"""
)
"""Light and dark by ``prefers-color-scheme``; the series have the colours of the figures, and lighter ones on dark."""

for _number in range(len(COLOURS)):
    STYLE += f".series-{_number} {{ background: var(--series-{_number}); }}\n"
