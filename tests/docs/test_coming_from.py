"""The pages for users of other libraries: both sides of each pair of programs run and give the same numbers.

A page begins with code for both sides. A pair is the other library's program, below its name in bold, and ours, below
**fewstep**. Both start from the same random numbers, and leave behind `losses`, `rate_gradient` or gradients of the
network. Where the other library does not install, its programs are checked for syntax.
"""

import re
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep

FOLDER = Path(__file__).parents[2] / "docs" / "coming-from"
BLOCK = re.compile(r"(?:^\*\*(?P<side>[^*\n]+)\*\*\n\n)?```python\n(?P<code>.*?)^```", flags=re.DOTALL | re.MULTILINE)
PACKAGES = {
    "higher": "higher",
    "TorchOpt": "torchopt",
    "learn2learn": "learn2learn",
    "torchmeta": "torchmeta",
    "cbfinn/maml": None,  # no Python of ours has its TensorFlow
    "cbfinn/maml's formulas": "torch",
}

pytestmark = pytest.mark.usefixtures("double")


@dataclass(frozen=True)
class Pair:
    page: str
    package: str
    setup: str
    theirs: str
    ours: str


def pairs_of(page: Path) -> list[Pair]:
    blocks = [(block["side"], block["code"]) for block in BLOCK.finditer(page.read_text())]
    setup = "".join(code for side, code in blocks if side is None)
    sides = [(side, code) for side, code in blocks if side is not None]
    pairs = []
    for (package, theirs), (side, ours) in zip(sides[::2], sides[1::2], strict=True):
        assert side == "fewstep", f"{page.name}: the program below **{package}** has no counterpart"
        pairs.append(Pair(page.stem, package, setup, theirs, ours))
    return pairs


PAIRS = [pair for page in sorted(FOLDER.glob("*.md")) for pair in pairs_of(page)]
each_pair = pytest.mark.parametrize("pair", PAIRS, ids=[f"{pair.page}-{i}" for i, pair in enumerate(PAIRS)])


def run(pair: Pair, code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": pair.page}
    torch.manual_seed(0)
    exec(compile(pair.setup, f"{pair.page}: for both", "exec"), names)
    torch.manual_seed(1)
    exec(compile(code, f"{pair.page}: {pair.package}", "exec"), names)
    return names


def outcome(names: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What a program computed: the tensors it names for comparison, and the gradients and values of the network."""
    found = {"losses": names["losses"].detach()} if "losses" in names else {}
    if "rate_gradient" in names:
        found["rate_gradient"] = names["rate_gradient"].flatten().sort().values  # in any order
    network = names["learner"].model if "learner" in names else names["network"]
    for number, parameter in enumerate(network.parameters()):
        found[f"value {number}"] = parameter.detach()
        if parameter.grad is not None:
            found[f"gradient {number}"] = parameter.grad
    return found


@each_pair
def test_ours_runs(pair: Pair):
    names = run(pair, pair.ours)
    assert "losses" in names or any(p.grad is not None for p in names["learner"].parameters())


@each_pair
def test_both_give_the_same_numbers(pair: Pair):
    module = PACKAGES[pair.package]
    if module is None or find_spec(module) is None:
        compile(pair.theirs, f"{pair.page}: {pair.package}", "exec")
        pytest.skip(f"{pair.package} is not installed: its program is checked for syntax only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other library
        theirs = outcome(run(pair, pair.theirs))
    ours = outcome(run(pair, pair.ours))
    assert theirs.keys() == ours.keys()
    assert len(theirs) > len([name for name in theirs if name.startswith("value")])
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_taskset_of_learn2learn_becomes_a_task_source():
    class Taskset:
        def sample(self):
            labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
            return torch.arange(8.0)[:, None] + 10 * labels[:, None], labels

    pair = next(pair for pair in PAIRS if pair.page == "learn2learn")
    source = run(pair, "")["FromTaskset"](Taskset())
    tasks = source.sample(3)
    assert isinstance(source, fewstep.tasks.TaskSource)
    assert tasks.support.x[2, :, 0].tolist() == [0.0, 2.0, 14.0, 16.0]
    assert tasks.query.x[0, :, 0].tolist() == [1.0, 3.0, 15.0, 17.0]
    assert tasks.query.y[1].tolist() == [0, 0, 1, 1]


def test_every_page_is_in_the_index():
    index = (FOLDER / "index.md").read_text()
    for page in FOLDER.glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index
