"""Test torchvision's datasets and a user's own network as in tools/README.md: train, evaluate, save, load."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.datasets import CIFAR10, ImageFolder

from detseg import Predictor, create_model, data_loader, evaluate, load, train_one_epoch
from detseg.checkpoints import save_checkpoint
from detseg.datasets import LabelledImages
from detseg.engine.evaluate import validation_loss
from detseg.errors import DataError
from detseg.models import OwnClassifier

CLASSES = ["airplane", "automobile", "bird"]


class OwnNet(nn.Module):
    """A CNN of a user: [N, 3, 32, 32] -> logits [N, K]."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, classes)
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layers(batch)


def solid_image(index: int) -> np.ndarray:
    """Return noise with one bright channel, which depends on the class."""
    pixels = np.random.default_rng(index).integers(0, 90, (32, 32, 3), dtype=np.uint8)
    pixels[..., index % 3] += 120
    return pixels


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CIFAR10:
    """Write files in the format of CIFAR10 with 60 images of three classes; its list of checksums is replaced."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()

    def write(name: str, content: object) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    images = np.stack([solid_image(index).transpose(2, 0, 1).reshape(-1) for index in range(60)])
    batches = [
        write(f"data_batch_{n}", {"data": images[12 * n - 12 : 12 * n], "labels": [i % 3 for i in range(12)]})
        for n in range(1, 6)
    ]
    monkeypatch.setattr(CIFAR10, "train_list", batches)
    monkeypatch.setattr(CIFAR10, "test_list", [])
    names = write("batches.meta", {"label_names": CLASSES})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": names[0], "key": "label_names", "md5": names[1]})
    return CIFAR10(tmp_path, train=True)


def test_cifar10_and_the_network_of_a_user(cifar: CIFAR10, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = OwnClassifier(OwnNet(), cifar.classes, image_size=32)
    loader = data_loader(LabelledImages(cifar, model.preprocessing), 16, shuffle=True)
    before = evaluate(model, loader, "cpu").best()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(4):
        train_one_epoch(model, optimizer, loader, "cpu", epoch)
    metrics = evaluate(model, loader, "cpu")
    save_checkpoint(tmp_path / "own.safetensors", model)
    again = load(tmp_path / "own.safetensors", build=lambda saved: OwnClassifier.from_saved(OwnNet(), saved))

    assert metrics.best() == 1.0 > before
    assert "accuracy" in capsys.readouterr().out
    assert "loss_classifier" in validation_loss(model, loader, "cpu")
    expected, reloaded, control = (
        Predictor(m, "cpu")(solid_image(1)) for m in (model, again, OwnClassifier(OwnNet(), CLASSES, image_size=32))
    )
    assert np.array_equal(expected.probabilities, reloaded.probabilities)
    assert not np.array_equal(expected.probabilities, control.probabilities)
    assert again.description == model.description
    with pytest.raises(DataError, match=r"load.path, build=...."):
        load(tmp_path / "own.safetensors")


def test_cifar10_and_a_model_of_this_project(cifar: CIFAR10, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("resnet18", cifar.classes, weights="none", image_size=33).model
    subset = torch.utils.data.Subset(cifar, range(24))
    loader = data_loader(LabelledImages(subset, model.preprocessing), 8, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    first, second = (
        train_one_epoch(model, optimizer, loader, "cpu", epoch).losses["loss"] for epoch in (1, 2)
    )  # not epoch 0, which has a warm-up
    metrics = evaluate(model, loader, "cpu")
    save_checkpoint(tmp_path / "resnet.safetensors", model)
    again = load(tmp_path / "resnet.safetensors")
    assert second < first
    assert metrics.to_dict()["images"] == 24
    assert evaluate(again, loader, "cpu").best() == metrics.best()


def test_an_image_folder(tmp_path: Path) -> None:
    for index in range(12):
        folder = tmp_path / "data" / CLASSES[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(solid_image(index), np.ones((2, 3, 1), np.uint8))).save(folder / f"{index}.png")
    data = ImageFolder(tmp_path / "data")
    torch.manual_seed(0)
    model = OwnClassifier(OwnNet(), data.classes, image_size=32)
    loader = data_loader(LabelledImages(data, model.preprocessing), 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(6):
        train_one_epoch(model, optimizer, loader, "cpu", epoch)
    assert evaluate(model, loader, "cpu").best() == 1.0


def test_a_checkpoint_of_another_kind_is_an_error() -> None:
    with pytest.raises(DataError, match="'resnet18', not a custom module"):
        OwnClassifier.from_saved(OwnNet(), {"arch": "resnet18"})


@pytest.mark.parametrize(
    ("network", "message"),
    [(OwnNet(classes=4), r"\[2, 4\].*3 classes"), (nn.Conv2d(3, 3, 1), r"\[2, 3, 32, 32\].*3 classes")],
)
def test_a_network_with_other_outputs_is_an_error(network: nn.Module, message: str) -> None:
    model = OwnClassifier(network, CLASSES, image_size=32)
    images = [torch.from_numpy(solid_image(i)).permute(2, 0, 1) for i in range(2)]
    with pytest.raises(DataError, match=message):
        model(images, [{"class_index": torch.tensor(0)}] * 2)
    with pytest.raises(DataError, match=message):
        model.eval()(images)


def test_one_small_image_is_a_valid_batch_without_norm_layers() -> None:
    model = OwnClassifier(OwnNet(), CLASSES, image_size=32)
    image = torch.from_numpy(solid_image(0)).permute(2, 0, 1)
    assert torch.isfinite(model([image], [{"class_index": torch.tensor(0)}])["loss_classifier"])
