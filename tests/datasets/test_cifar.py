"""CIFAR-FS and FC100 from CIFAR-100 as people have it."""

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.datasets import cifar_fs, fc100
from fewstep.experiments.few_shot import FewShot
from fewstep.experiments.few_shot.experiment import Data, Method
from fewstep.experiments.few_shot.methods.maml import MAML
from fewstep.experiments.few_shot.methods.prototypical import Prototypical
from fewstep.tasks import generator

pytestmark = pytest.mark.usefixtures("own_cache")

SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
FINE = sorted(name for names in SUPERCLASSES.values() for name in names.split())
COARSE = list(SUPERCLASSES)
ABOVE = [next(i for i, names in enumerate(SUPERCLASSES.values()) if name in names.split()) for name in FINE]


def cifar_part(copies: int) -> tuple[np.ndarray, list[int], list[int]]:
    """Red is the class, green the superclass, blue the row."""
    fine = [label for _ in range(copies) for label in reversed(range(100))]
    coarse = [ABOVE[label] for label in fine]
    images = np.zeros((len(fine), 3, 32, 32), np.uint8)
    images[:, 0] = np.array(fine)[:, None, None]
    images[:, 1] = np.array(coarse)[:, None, None]
    images[:, 2] = np.arange(32)[:, None]
    return images.reshape(len(fine), -1), fine, coarse


def cifar(root: Path, kind: str, copies=(2, 1)) -> Path:
    folder = root / f"cifar-100-{kind}"
    folder.mkdir(parents=True)
    parts = dict(zip(("train", "test"), map(cifar_part, copies), strict=True))
    if kind == "python":
        for name, (images, fine, coarse) in parts.items():
            content = {b"data": images, b"fine_labels": fine, b"coarse_labels": coarse, b"batch_label": b"part"}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        names = {
            b"fine_label_names": [name.encode() for name in FINE],
            b"coarse_label_names": [name.encode() for name in COARSE],
        }
        (folder / "meta").write_bytes(pickle.dumps(names))
    else:
        for name, (images, fine, coarse) in parts.items():
            rows = np.concatenate([np.array([coarse, fine], np.uint8).T, images], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        (folder / "fine_label_names.txt").write_text("\n".join(FINE) + "\n\n")
        (folder / "coarse_label_names.txt").write_text("\n".join(COARSE) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize("archived", [False, True])
def test_cifar_splits(tmp_path: Path, kind: str, archived: bool):
    folder = cifar(tmp_path if archived else tmp_path / "cifar-100", kind)
    if archived:
        with tarfile.open(tmp_path / f"cifar-100-{kind}.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    for load, counts in ((cifar_fs, (64, 16, 20)), (fc100, (60, 20, 20))):
        parts = [load(tmp_path, split) for split in ("train", "validation", "test")]
        assert tuple(len(part.classes) for part in parts) == counts
        assert sorted(name for part in parts for name in part.classes) == FINE
        for part in parts:
            assert part.images.shape == (3 * len(part.classes), 3, 32, 32)
            labels = torch.tensor([FINE.index(name) for name in part.classes]).repeat_interleave(3)
            assert torch.equal(part.images[:, 0, 5, 9].long(), labels)
            assert torch.equal(part.images[:, 1, 9, 5].long(), torch.tensor(ABOVE)[labels])
            assert part.images[0, 2, :, 7].tolist() == list(range(32))


def test_fc100_divides_superclasses(tmp_path: Path):
    cifar(tmp_path, "python")
    found = {
        split: set(fc100(tmp_path, split).images[:, 1, 0, 0].tolist()) for split in ("train", "validation", "test")
    }
    assert {split: len(labels) for split, labels in found.items()} == {"train": 12, "validation": 4, "test": 4}
    assert {COARSE[i] for i in found["test"]} == {"aquatic_mammals", "insects", "medium_mammals", "people"}
    assert {COARSE[i] for i in found["validation"]} == {
        "large_carnivores",
        "large_omnivores_and_herbivores",
        "non-insect_invertebrates",
        "small_mammals",
    }


def test_cifar_names_what_is_wrong(tmp_path: Path):
    with pytest.raises(ValueError, match="cifar-fs: split must be one of"):
        cifar_fs(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match=r"cifar-100-python\.tar\.gz.*in .*cifar\.html"):
        fc100(tmp_path, "train")
    folder = cifar(tmp_path, "python")
    test = (folder / "test").read_bytes()
    (folder / "test").write_bytes(test[:-500])
    with pytest.raises(ValueError, match=r"cifar-100-python: test cannot be read"):
        cifar_fs(tmp_path, "train")
    (folder / "test").write_bytes(
        pickle.dumps({"data": np.zeros((2, 9), np.uint8), "fine_labels": [], "coarse_labels": []})
    )
    with pytest.raises(ValueError, match=r"test: data must be uint8 \[images, 3072\]; got uint8 \(2, 9\)"):
        cifar_fs(tmp_path, "train")
    (folder / "test").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 3 files, such as test"):
        cifar_fs(tmp_path, "train")


@pytest.mark.parametrize(("cut", "says"), [(100, "train.bin is truncated"), (3074, "from 2 to 3 images per class")])
def test_binary_cifar_cut_short_is_named(tmp_path: Path, cut: int, says: str):
    file = cifar(tmp_path, "binary") / "train.bin"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=says):
        cifar_fs(tmp_path, "train")


@pytest.mark.parametrize("data", ["cifar-fs", "fc100"])
@pytest.mark.parametrize("method", [MAML(), Prototypical()])
def test_experiments_take_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Data, method: Method):
    cifar(tmp_path, "python")
    monkeypatch.setenv("FEWSTEP_DATA", str(tmp_path))
    experiment = FewShot(data=data, method=method, filters=4)
    learner = experiment.learner(compile=False)
    loss = learner.meta_loss(experiment.train_source().sample(2, generator(0, 0)))
    assert loss.isfinite()
    assert len(experiment.validation_source().dataset.classes) == {"cifar-fs": 16, "fc100": 20}[data]
    assert not experiment.train_source().rotations
