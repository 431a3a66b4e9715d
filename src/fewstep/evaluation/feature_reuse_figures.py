"""Figure 2 and table 1 of the feature reuse paper (Raghu et al. 2019) for any learner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fewstep.evaluation.feature_reuse import Comparison
from fewstep.evaluation.figures import COLOURS, figure, save, tidy


def plot_feature_reuse(similarities: Mapping[str, Comparison], frozen: Comparison, path: Path) -> Path:
    """Left, how alike each layer is before and after adaptation; right, the metric with ever more blocks frozen.

    Both with 95% intervals.

    Args:
        similarities: as :func:`fewstep.evaluation.layer_similarity` returns them.
        frozen: as :func:`fewstep.evaluation.freezing` returns it.
        path: the picture to write.
    """
    layers = next(iter(similarities.values())).names
    drawn, ((left, right),) = figure(columns=2, width=max(5.0, 0.8 * len(layers)), height=3.6)
    width = 0.8 / len(similarities)
    for number, (name, found) in enumerate(similarities.items()):
        places = [place + (number - (len(similarities) - 1) / 2) * width for place in range(len(layers))]
        colour = COLOURS[number % len(COLOURS)]
        left.bar(places, found.mean, width, yerr=found.ci95, color=colour, capsize=2, label=name)
    crowded = sum(len(layer) for layer in layers) > 50
    left.set_xticks(range(len(layers)), layers, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    left.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    left.set_ylim(0, 1.2)
    left.set_title("before against after adaptation", fontsize=10)
    tidy(left, "layer", "similarity")
    left.legend(fontsize=8, loc="upper right", ncols=len(similarities))

    rows = range(len(frozen.names))
    right.barh(rows, frozen.mean, 0.7, xerr=frozen.ci95, color=COLOURS[2], capsize=2)
    for axes in (left, right):
        axes.set_axisbelow(True)
    for row, mean, interval in zip(rows, frozen.mean, frozen.ci95, strict=True):
        numbers = f"{mean:.3f} ± {interval:.3f}"
        right.text(1.02, row, numbers, va="center", fontsize=8, transform=right.get_yaxis_transform())
    labels = ["none", *(f"up to {name}" for name in frozen.names[1:])]
    right.set_yticks(rows, labels)
    right.set_xlim(0, 1.1 * max(frozen.mean))
    right.invert_yaxis()
    right.set_title("blocks not adapted at test", fontsize=10)
    tidy(right, frozen.metric)
    return save(drawn, path)
