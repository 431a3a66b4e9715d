"""Draws the diagrams of the concept pages into docs/images, as SVG that is legible on light and on dark pages."""

from __future__ import annotations

from html import escape
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
INNER, OUTER, DATA, QUIET = "#4f63c6", "#b5541c", "#2e7d6b", "#7d8796"
"""Colours of the inner loop, of the outer loop, of data, and of lines and labels."""
LABELS = {INNER: "#6a7de0", OUTER: "#c9692f", DATA: "#2f9079"}
"""Their brighter versions for text outside of boxes, which stands on the page's own colour."""


class Drawing:
    """Boxes, arrows and labels, collected as SVG elements."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, color: str = QUIET, size: int = 15, anchor: str = "middle") -> None:
        """Words whose middle is at height y; the letters after ``~`` up to a space are a subscript."""
        color = LABELS.get(color, color)
        spans = [f"<tspan>{escape(words.split('~')[0])}</tspan>"]
        for part in words.split("~")[1:]:
            low, _, rest = part.partition(" ")
            spans.append(f'<tspan baseline-shift="sub" font-size="{size - 4}">{escape(low)}</tspan>')
            spans.append(f"<tspan>{escape(' ' + rest if rest else '')}</tspan>")
        joined = "".join(spans)
        self.parts.append(
            f'<text x="{x}" y="{y + size * 0.35:.1f}" fill="{color}" font-size="{size}" text-anchor="{anchor}" '
            f'xml:space="preserve">{joined}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, words: str, color: str, empty: bool = False) -> None:
        """A box with words in its middle; an empty one has an outline only."""
        fill = f'fill="none" stroke="{color}" stroke-width="1.6" stroke-dasharray="4 3"' if empty else f'fill="{color}"'
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" {fill}/>')
        lines = words.split("\n")
        for i, line in enumerate(lines):
            middle = y + height / 2 + (i - (len(lines) - 1) / 2) * 19
            self.text(x + width / 2, middle, line, color if empty else "#ffffff")

    def arrow(self, x: float, y: float, to_x: float, to_y: float, color: str = QUIET, dashed: bool = False) -> None:
        """A straight arrow."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{color}" stroke-width="1.8"{dash} '
            f'marker-end="url(#{color[1:]})"/>'
        )

    def line(self, points: list[tuple[float, float]], color: str, dashed: bool = False) -> None:
        """A line around corners, with an arrowhead at its end."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        joined = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="1.8"{dash} '
            f'marker-end="url(#{color[1:]})"/>'
        )

    def save(self, name: str) -> None:
        """Writes ``name.svg``."""
        heads = "".join(
            f'<marker id="{color[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{color}"/></marker>'
            for color in (INNER, OUTER, DATA, QUIET)
        )
        body = "\n".join(self.parts)
        (IMAGES / f"{name}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="system-ui, sans-serif" role="img">\n'
            f"<title>{escape(self.title)}</title>\n<defs>{heads}</defs>\n{body}\n</svg>\n"
        )


def choices() -> None:
    """The whole of it: where each of the five choices sits."""
    d = Drawing(760, 330, "Adaptation and meta-learning, with the five choices")
    d.box(10, 20, 130, 50, "tasks p(T)", DATA)
    d.text(75, 88, "1 tasks", DATA)
    d.arrow(140, 45, 210, 45, DATA)
    d.box(212, 20, 110, 50, "support", DATA)
    d.box(630, 20, 110, 50, "query", DATA)
    d.line([(75, 20), (75, 8), (685, 8), (685, 18)], DATA)
    for i, (x, words) in enumerate([(60, "φ~0 = θ"), (230, "φ~1"), (400, "…"), (520, "φ~K")]):
        d.box(x, 160, 90 if i != 2 else 50, 46, words, INNER)
    for x, to_x in ((150, 228), (320, 398), (450, 518)):
        d.arrow(x, 183, to_x, 183, INNER)
    for x in (189, 359, 484):
        d.line([(267, 70), (267, 118), (x, 118), (x, 172)], DATA, dashed=True)
    d.text(190, 226, "3 rule U", INNER)
    d.text(400, 103, "2 model and loss", DATA)
    d.arrow(610, 183, 660, 183, INNER)
    d.box(662, 150, 88, 66, "L(φ~K ;\nquery)", OUTER)
    d.arrow(700, 72, 700, 148, DATA)
    d.text(684, 232, "5 objective", OUTER)
    d.line([(742, 218), (742, 290), (105, 290), (105, 210)], OUTER)
    d.text(420, 274, "4 adjoint: dL/dθ back through the inner steps", OUTER)
    d.text(420, 310, "the outer optimiser updates θ and everything else that is learned", QUIET, 14)
    d.save("choices")


def tasks() -> None:
    """A meta-batch."""
    d = Drawing(700, 250, "A meta-batch of tasks: support and query sets with a leading task axis")
    for i in range(3):
        y = 40 + 55 * i
        d.text(60, y + 18, f"task {i}", DATA)
        for k in range(3):
            d.box(110 + 52 * k, y, 46, 36, f"x~{k}", INNER)
        for k in range(6):
            d.box(330 + 52 * k, y, 46, 36, f"x~{k + 3}", OUTER)
    d.text(188, 18, "support: x [tasks, 3, …]", INNER)
    d.text(484, 18, "query: x [tasks, 6, …]", OUTER)
    d.text(350, 220, "one fs.Task for the whole meta-batch; tasks[i] is one task without the task axis", QUIET)
    d.save("tasks")


def model() -> None:
    """From a loss of (model, batch) to a function of parameters."""
    d = Drawing(700, 210, "The loss is called with a stand-in for the model that holds the current parameters")
    d.box(10, 30, 150, 50, "your nn.Module", DATA)
    d.box(10, 130, 150, 50, "parameters φ~k", INNER)
    d.box(240, 80, 150, 50, "stand-in", INNER)
    d.arrow(160, 55, 238, 92, DATA)
    d.arrow(160, 155, 238, 118, INNER)
    d.text(205, 50, "class", DATA, 14)
    d.text(210, 160, "tensors", INNER, 14)
    d.box(470, 80, 210, 50, "loss(model, batch)", OUTER)
    d.arrow(390, 105, 468, 105, INNER)
    d.box(500, 8, 150, 40, "batch", DATA)
    d.arrow(575, 48, 575, 78, DATA)
    d.arrow(575, 130, 575, 168, OUTER)
    d.text(575, 186, "scalar, differentiable in φ~k", OUTER)
    d.save("model")


def rule() -> None:
    """One inner step."""
    d = Drawing(740, 190, "One inner step: gradient, transforms, rule")
    d.box(10, 60, 80, 50, "φ~k", INNER)
    d.arrow(90, 85, 138, 85, INNER)
    d.box(140, 60, 150, 50, "g = ∇L(φ~k )", DATA)
    d.arrow(290, 85, 338, 85, INNER)
    d.box(340, 60, 120, 50, "transforms", INNER, empty=True)
    d.arrow(460, 85, 508, 85, INNER)
    d.box(510, 60, 90, 50, "rule", INNER)
    d.arrow(600, 85, 648, 85, INNER)
    d.box(650, 60, 80, 50, "φ~k+1", INNER)
    d.line([(50, 110), (50, 145), (555, 145), (555, 112)], INNER)
    d.line([(530, 60), (530, 25), (580, 25), (580, 58)], QUIET)
    d.text(555, 12, "state (momentum, moments)", QUIET, 14)
    d.text(400, 128, "clip, decay, scale", QUIET, 14)
    d.text(215, 44, "support set", DATA, 14)
    d.text(300, 165, "the parameters themselves", QUIET, 14)
    d.save("rule")


def adjoint() -> None:
    """What each adjoint keeps and differentiates."""
    rows = [
        ("Unrolled()", ["graph"] * 4, "exact"),
        ("Recomputed()", ["φ~k only"] * 3 + ["graph"], "exact"),
        ("Truncated(last=1)", ["constant"] * 3 + ["graph"], "approximate"),
        ("FirstOrder()", ["constant"] * 4, "approximate"),
        ("Implicit()", ["–"] * 3 + ["solve at φ~K"], "approximate"),
    ]
    d = Drawing(740, 60 + 46 * len(rows), "What each adjoint keeps of each inner step")
    for k in range(4):
        d.text(245 + 105 * k, 20, f"step {k + 1}", QUIET)
    d.text(678, 20, "meta-gradient", QUIET)
    for i, (name, cells, verdict) in enumerate(rows):
        y = 40 + 46 * i
        d.text(180, y + 18, name, QUIET, 15, "end")
        for k, words in enumerate(cells):
            color = {"graph": INNER, "φ~k only": DATA}.get(words, QUIET if words in ("constant", "–") else OUTER)
            d.box(198 + 105 * k, y, 98, 36, words, color, empty=words in ("constant", "–"))
        d.text(678, y + 18, verdict, QUIET)
    d.save("adjoint")


def objective() -> None:
    """Which points of the path the objectives look at."""
    d = Drawing(720, 270, "Which parameters each objective evaluates")
    xs = [190, 330, 470, 610]
    for k, x in enumerate(xs):
        d.box(x, 20, 80, 44, f"φ~{k}" if k < 3 else "φ~K", INNER)
        if k:
            d.arrow(xs[k - 1] + 80, 42, x - 2, 42, INNER)
    rows = [
        ("query_loss", ["", "", "", "L(query)"]),
        ("multi_step_loss", ["", "w~1 L", "w~2 L", "w~K L"]),
        ("reptile_loss", ["½‖φ~0 − φ~K ‖²", "", "", "constant"]),
    ]
    for i, (name, cells) in enumerate(rows):
        y = 92 + 58 * i
        d.text(160, y + 20, name, OUTER, 15, "end")
        for x, words in zip(xs, cells, strict=True):
            if words == "constant":
                d.box(x - 15, y, 110, 40, words, OUTER, empty=True)
            elif words:
                d.box(x - 15, y, 110, 40, words, OUTER)
    d.save("objective")


def parameters() -> None:
    """Which parameters are adapted and which are learned."""
    rows = [
        ("MAML", "body", "both", "head", "both"),
        ("ANIL", "body", "learned", "head", "both"),
        ("BOIL", "body", "both", "head", "learned"),
        ("CAVIA", "body and head", "learned", "context", "adapted"),
        ("LoRA, frozen base", "base", "neither", "adapters", "both"),
    ]
    d = Drawing(700, 70 + 46 * len(rows), "Which parameters the inner loop adapts and the outer loop learns")
    colors = {"both": INNER, "learned": OUTER, "adapted": DATA, "neither": QUIET}
    for i, (name, first, of_first, second, of_second) in enumerate(rows):
        y = 14 + 46 * i
        d.text(170, y + 18, name, QUIET, 15, "end")
        d.box(190, y, 300, 36, f"{first}", colors[of_first], empty=of_first == "neither")
        d.box(500, y, 180, 36, f"{second}", colors[of_second], empty=of_second == "neither")
    y, x = 34 + 46 * len(rows), 60
    for words, kind in (
        ("adapted and learned", "both"),
        ("learned only", "learned"),
        ("adapted only", "adapted"),
        ("frozen", "neither"),
    ):
        d.box(x, y - 8, 16, 16, "", colors[kind], empty=kind == "neither")
        d.text(x + 24, y, words, QUIET, 14, "start")
        x += 60 + 8 * len(words)
    d.save("parameters")


def main() -> None:
    """Draws them all."""
    for draw in (choices, tasks, model, rule, adjoint, objective, parameters):
        draw()


if __name__ == "__main__":
    main()
