"""Old files keep working: checkpoints of schema 1 and 2, and a run that was interrupted in an epoch, goes on."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent / "checkpoints"
EXPECTED: dict[str, Any] = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
FILES: list[dict[str, Any]] = EXPECTED["files"]
DESCRIPTIONS: list[dict[str, Any]] = json.loads((HERE / "descriptions.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-4
RENAMED = {"waited": "epochs_without_improvement"}
"""Fields of a position, in the files and today."""

pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


class Net(nn.Module):
    """The network that the files ``own-*`` are of."""

    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        convolution = nn.Conv2d(3, width, 3, stride=2, padding=1)
        pool = nn.AdaptiveAvgPool2d(4)
        last = nn.Linear(width * 16, classes)
        self.layers = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), pool, nn.Flatten(), last)

    def forward(self, batch: Tensor) -> Tensor:
        return self.layers(batch)


def image(height: int, width: int) -> npt.NDArray[np.uint8]:
    """The fixed input of the stored predictions."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * 7 + y * 3) % 256, (x * y) % 256, (x // 8 * 60 + y // 8 * 90) % 256], -1).astype(np.uint8)


def digest(tensor: Tensor) -> str:
    """Of type, shape and bytes; the first 16 digits of the sha256."""
    array = tensor.detach().cpu().contiguous().numpy()
    return hashlib.sha256(f"{array.dtype.str}{list(array.shape)}".encode() + array.tobytes()).hexdigest()[:16]


def digests(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {name: digest(tensor) for name, tensor in tensors.items()}


def unpack(file: str, folder: Path) -> Path:
    """A stored file as it was written."""
    archive, _, member = file.partition(":")
    if member:
        with tarfile.open(HERE / archive) as tar:
            tar.extract(member, folder, filter="data")
        return folder / member
    if not file.endswith(".xz"):
        return HERE / file
    path = folder / file.removesuffix(".xz")
    path.write_bytes(lzma.decompress((HERE / file).read_bytes()))
    return path


def header(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8:end])["__metadata__"]["detseg"])


def check(prediction: Any, expected: dict[str, Any]) -> None:
    for name, values in expected.items():
        found = np.asarray(getattr(prediction, name))
        largest = 10 * TOLERANCE if name == "boxes" else TOLERANCE  # pixels are larger numbers than scores
        np.testing.assert_allclose(found, np.asarray(values), rtol=TOLERANCE, atol=largest, err_msg=name)


@pytest.mark.parametrize("stored", FILES, ids=lambda stored: stored["file"])
def test_an_old_checkpoint_is_read(stored: dict[str, Any], tmp_path: Path) -> None:
    """All that it holds: weights, the optimizer's state, the average, how far the run was, its data."""
    from detseg.engine import load_checkpoint

    path = unpack(stored["file"], tmp_path)
    written = header(path)
    assert written["schema"] == stored["schema"]
    assert written["model"] == stored["description"], "the file is as it was, old words included"
    checkpoint = load_checkpoint(path)
    for part in ("weights", "optimizer", "ema"):
        assert digests(getattr(checkpoint, part)) == stored.get(part, {}), part
    for name, value in stored["position"].items():
        assert getattr(checkpoint.position, RENAMED.get(name, name)) == value, name
    assert checkpoint.metrics == stored.get("metrics", {})
    assert checkpoint.channels_last == stored["channels_last"]
    for name in ("ema_updates", "data"):
        assert getattr(checkpoint, name) == stored.get(name, type(getattr(checkpoint, name))()), name
    if "sums" in stored:
        for one, old in zip(checkpoint.totals, stored["sums"], strict=True):
            assert vars(one) == {**vars(type(one)()), **old}, "what was added later has its default"


@pytest.mark.parametrize("stored", FILES, ids=lambda stored: stored["file"])
def test_an_old_model_predicts_as_it_did(stored: dict[str, Any], tmp_path: Path) -> None:
    """Loaded by the lines of README; a model of this project from its description alone."""
    from detseg import Predictor, load
    from detseg.models import OwnClassifier

    path = unpack(stored["file"], tmp_path)
    if stored["kind"] == "own module":
        module = load(path, build=lambda description: Net(**description))
        pixels = torch.from_numpy(image(32, 32)).permute(2, 0, 1)[None] / 255
        np.testing.assert_allclose(module(pixels).detach().numpy(), stored["logits"], atol=TOLERANCE)
        return
    if stored["kind"] == "own classifier":
        model = load(path, build=lambda saved: OwnClassifier.from_saved(Net(), saved))
        assert digests(model.state_dict()) == stored["weights"]
    else:
        model = load(path)
        assert set(model.state_dict()) == set(stored["weights"])
    check(Predictor(model, "cpu")(image(48, 64)), stored.get("prediction", {}))


@pytest.mark.parametrize("stored", DESCRIPTIONS, ids=lambda stored: stored["description"]["arch"])
def test_an_old_description_builds_the_same_tensors(stored: dict[str, Any]) -> None:
    """Names, shapes and types of all tensors, for each kind of model."""
    if "timm:" in stored["description"]["arch"]:
        pytest.importorskip("timm")
    from detseg.models import ModelDescription, build_model

    with torch.device("meta"):
        tensors = build_model(ModelDescription.from_dict(stored["description"])).state_dict()
    assert len(tensors) == stored["tensors"]
    text = "\n".join(f"{name} {list(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == stored["layout"]


def test_control_what_is_not_an_old_file_is_refused(tmp_path: Path) -> None:
    from detseg import DataError, load
    from detseg.models import ModelDescription

    content = bytearray((HERE / "own-module-2.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path / "damaged.safetensors", build=lambda description: Net(**description))
    newer = (HERE / "own-module-1.safetensors").read_bytes().replace(b'\\"schema\\": 1', b'\\"schema\\": 9')
    (tmp_path / "newer.safetensors").write_bytes(newer)
    with pytest.raises(DataError, match="schema 9"):
        load(tmp_path / "newer.safetensors", build=lambda description: Net(**description))
    with pytest.raises(DataError, match="no_such_key"):
        ModelDescription.from_dict({**DESCRIPTIONS[0]["description"], "no_such_key": 1})


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as it was left after two steps of its second epoch, on data of this machine."""
    folder = tmp_path_factory.mktemp("old")
    shutil.copytree(HERE / "old-run", folder / "run", ignore=shutil.ignore_patterns("data", "*.xz"))
    shutil.copytree(HERE / "old-run" / "data", folder / "data")
    for name in ("last", "best"):
        unpack(f"old-run/checkpoints.tar.xz:{name}.safetensors", folder / "run")
    text = (folder / "run" / "config.toml").read_text(encoding="utf-8")
    for written, here in (("DATA", folder / "data"), ("RUN", folder / "run"), ("WEIGHTS", "weights.safetensors")):
        assert f'"{written}"' in text
        text = text.replace(f'"{written}"', json.dumps(str(here)))
    (folder / "run" / "config.toml").write_text(text, encoding="utf-8")
    return folder / "run"


def test_an_old_run_goes_on(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its options, weights, AdamW's state, average and half an epoch's sums: the end is the one that it had then."""
    from detseg import Predictor
    from detseg.cli import main

    assert main(["train", "--resume", str(old_run), "--device", "cpu", "--workers", "0"]) == 0
    assert "in epoch 2, after 2 batches" in capsys.readouterr().out
    lines = (old_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(EXPECTED["resumed"]["rows"])
    for line, row in zip(lines, EXPECTED["resumed"]["rows"], strict=True):
        found = json.loads(line)
        assert found["first_epoch"] == 1
        counted = row | {"epoch": row["epoch"] + 1}  # then, the first epoch was 0
        assert {name: found[name] for name in row} == pytest.approx(counted, abs=TOLERANCE)
    check(Predictor(old_run / "last.safetensors", "cpu")(image(48, 64)), EXPECTED["resumed"]["prediction"])
    assert main(["evaluate", str(old_run), "--device", "cpu", "--workers", "0", "--json"]) == 0
