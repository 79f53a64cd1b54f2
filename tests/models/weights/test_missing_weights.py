"""Messages about missing weights suggest only weights that exist."""

from __future__ import annotations

import http.client
import re
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from detseg.checkpoints import load, save_checkpoint
from detseg.checkpoints.rotation import latest_checkpoint
from detseg.errors import DataError
from detseg.models.backbones import BACKBONES
from detseg.models.weights.published import cache_path, file_name
from detseg.models.weights.starting_weights import StartingWeights, read_state_dict
from detseg.runtime.run_folder import RunFolder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no network."""

    def refuse(*args: object, **options: object) -> NoReturn:
        raise http.client.HTTPException("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def message(weights: str) -> str:
    with pytest.raises(DataError) as refused:
        _ = StartingWeights.open(weights, "maskrcnn_resnet50_fpn").state
    return str(refused.value)


@pytest.mark.usefixtures("offline")
def test_published_weights_that_are_not_in_the_cache() -> None:
    imagenet = BACKBONES["resnet50"].imagenet.url
    suggested = message("imagenet").partition("use other weights")[2]
    assert "imagenet" not in suggested, "the file that is missing"
    assert re.findall(r"--weights (\w+)", suggested) == ["PATH", "bundled", "none"]
    either = f"--weights imagenet (backbone only; {file_name(imagenet)} must be in the cache, and is not there either)"
    assert either in message("coco")
    cached = cache_path(imagenet)
    cached.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"x": torch.ones(1)}, cached)
    text = message("coco")  # control
    assert file_name(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url) in text
    assert f"--weights imagenet (backbone only; {cached.name} is in the cache)" in text


def test_a_run_without_its_best_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    for read in (load, read_state_dict):
        with pytest.raises(FileNotFoundError, match=r"best\.safetensors: no such (checkpoint|file); (?!.*exists)"):
            read(run.path)  # type: ignore[operator]
    save_checkpoint(run.last, torch.nn.Linear(1, 1), description={"own": 1})
    for read in (load, read_state_dict):
        with pytest.raises(FileNotFoundError) as missing:
            read(run.path)  # type: ignore[operator]
        exists = re.search(r"; (\S+) exists: pass that file", str(missing.value))
        assert exists is not None
        assert read_state_dict(exists[1])


def test_damaged_checkpoints(tmp_path: Path) -> None:
    for has_best in (False, True):
        run = RunFolder(tmp_path / str(has_best))
        run.path.mkdir()
        save_checkpoint(run.last, torch.nn.Linear(1, 1), description={"own": 1})
        if has_best:
            shutil.copy(run.last, run.best)
        run.last.write_bytes(run.last.read_bytes()[:-4])
        with pytest.raises(DataError) as refused:
            latest_checkpoint(run.path)
        assert str(refused.value).endswith(f"start a new run with --weights {run.best}") == has_best
