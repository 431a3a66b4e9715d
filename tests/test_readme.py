"""The README's code runs as it stands (with fewer iterations)."""

import re
from pathlib import Path

import pytest
from torch import nn

import fewstep

README = Path(__file__).parent.parent / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_first_example(capsys: pytest.CaptureFixture[str]):
    names: dict = {}
    exec(blocks()[0].replace("2_000", "10"), names)
    assert type(names["model"]) is fewstep.models.MLP
    assert names["prediction"].shape == (10, 1)
    assert "mse over 600 tasks" in capsys.readouterr().out


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
    exec(blocks()[1].replace("10_000", "3").replace("runs/mine", str(tmp_path / "mine")), names)
    assert names["learner"].adapts == ["head.weight", "head.bias"]
    assert (tmp_path / "mine" / "metrics.jsonl").is_file()
