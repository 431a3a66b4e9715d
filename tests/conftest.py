"""What every test shares: one thread, fixed random numbers, and shapes checked against their annotations."""

import warnings
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

NETWORKS = ["context_conv4", "conv4", "fully_connected", "images", "resnet12"]
OPERATIONS = ["convolution", "normalization", "pooling", "products"]  # not Triton's kernels, whose source is compiled
CHECKED = [
    *(f"fewstep.models.{name}" for name in NETWORKS),
    *(f"fewstep.models.second_order.{name}" for name in OPERATIONS),
    *("fewstep.objectives.losses", "fewstep.tasks.sinusoids"),
]
install_import_hook(CHECKED, "shapes.checked")  # it stays: fewstep imports its parts when they are first used

with warnings.catch_warnings():  # its syntax makes Python warn on compiling it, which not every installer does before
    warnings.simplefilter("ignore")
    import higher  # noqa: F401

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def double():
    """Float64 by default, in which finite differences are accurate."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty cache for decoded images."""
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
