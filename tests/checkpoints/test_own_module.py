"""The engine with a user-defined module and dataset, without this project's models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from detseg.checkpoints import load, save_checkpoint
from detseg.datasets import data_loader
from detseg.engine import evaluate, train_one_epoch


class Squares(torch.utils.data.Dataset[Any]):
    """One bright square in each gray image."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(index)
        x, y = torch.randint(0, 20, (2,), generator=generator).tolist()
        image = torch.zeros(3, 32, 32)
        image[:, y : y + 12, x : x + 12] = 1
        boxes = torch.tensor([[x, y, x + 12, y + 12]], dtype=torch.float32)
        return image, {"boxes": boxes, "labels": torch.tensor([1]), "image_id": index}


class OneBox(nn.Module):
    """Predicts the box of the square: losses in training mode, one detection per image in eval mode."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, Any]] | None = None) -> Any:
        boxes = 32 * self.layers(torch.stack(list(images)))
        if self.training:
            assert targets is not None
            return {"loss_box": (boxes - torch.cat([target["boxes"] for target in targets])).abs().mean() / 32}
        score = torch.ones(1)
        return [{"boxes": box[None].clamp(0, 32), "labels": score.long(), "scores": score} for box in boxes]


def test_own_module_and_dataset(tmp_path: Path, capsys: Any) -> None:
    torch.manual_seed(0)
    model = OneBox(64)
    loader = data_loader(Squares(), 8, shuffle=True)
    before = evaluate(model, loader, "cpu").best()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = [train_one_epoch(model, optimizer, loader, "cpu", epoch).losses["loss"] for epoch in range(80)]
    metrics = evaluate(model, loader, "cpu")
    assert losses[-1] < 0.2 * losses[0]
    assert before < 0.05
    assert metrics.best() > 0.5
    assert "Average Precision" in capsys.readouterr().out

    save_checkpoint(tmp_path / "own.safetensors", model, description={"width": 64}, metrics=metrics.to_dict())
    loaded = load(tmp_path / "own.safetensors", build=lambda description: OneBox(description["width"]))
    assert not loaded.training
    image = [Squares()[0][0]]
    with torch.inference_mode():
        expected, actual = model.eval()(image), loaded(image)
        control = OneBox(64).eval()(image)
    assert torch.equal(actual[0]["boxes"], expected[0]["boxes"])
    assert not torch.equal(control[0]["boxes"], expected[0]["boxes"])
