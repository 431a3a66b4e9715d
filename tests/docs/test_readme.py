"""The README's code runs as it stands (with fewer iterations)."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import fewstep

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_first_example(capsys: pytest.CaptureFixture[str]):
    names: dict = {}
    exec(blocks()[0].replace("2_000", "10"), names)
    assert type(names["model"]) is fewstep.models.MLP
    assert names["prediction"].shape == (10, 1)
    assert "mse over 600 tasks" in capsys.readouterr().out


def test_own_data(capsys: pytest.CaptureFixture[str]):
    code = blocks()[1]
    names = {"fs": fewstep, "torch": __import__("torch")}
    exec(code.replace("1_000", "2"), names)
    assert names["tasks"].sample(3).query.weight is not None
    assert "tensor([[" in capsys.readouterr().out
    pandas = pytest.importorskip("pandas")
    sensors = {"sensor": ["a"] * 9 + ["b"] * 12, **dict.fromkeys(("temperature", "pressure", "reading"), range(21))}
    comment = next(line for line in code.splitlines() if line.startswith("# of a DataFrame: "))
    names["data"] = eval(comment.removeprefix("# of a DataFrame: "), {"frame": pandas.DataFrame(sensors)})
    tasks = fewstep.tasks.TaskList(names["data"], shots=8).sample(2)
    assert (tasks.support.x.shape, tasks.query.weight.sum(1).sort().values.tolist()) == ((2, 8, 2), [1, 4])


def test_own_module_loss_and_tasks(tmp_path: Path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Linear(1, 8), nn.Linear(8, 1)

        def forward(self, x):
            return self.head(self.embedding(x).tanh())

    names = {
        "fs": fewstep,
        "torch": __import__("torch"),
        "my_module": Net(),
        "my_loss": lambda model, batch: (model(batch.x) - batch.y).abs().mean(),
        "my_tasks": fewstep.tasks.Sinusoids(),
    }
    exec(blocks()[2].replace("10_000", "3").replace("runs/mine", str(tmp_path / "mine")), names)
    assert names["learner"].adapts == ["head.weight", "head.bias"]
    assert (tmp_path / "mine" / "metrics.jsonl").is_file()


def test_few_shot_classifier_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for label in range(15):
        folder = tmp_path / "photos" / f"class{label}"
        folder.mkdir(parents=True)
        for i in range(16):
            Image.fromarray(random.integers(256, size=(20, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    names = {"fs": fewstep, "torch": __import__("torch")}
    code = blocks()[3].replace("photos", str(tmp_path / "photos"))
    for slow, fast in (("=200", "=2"), ("=100", "=3"), ("meta_batch=4", "meta_batch=1"), ("queries=15", "queries=5")):
        code = code.replace(slow, fast)
    exec(code, names)
    assert "accuracy over 3 tasks" in capsys.readouterr().out
    assert names["learner"].adapts == ["head.weight", "head.bias"]
