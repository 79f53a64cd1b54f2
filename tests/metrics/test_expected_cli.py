"""The command line reproduces the published metrics of every stored pair of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main

ZERO = "hotcoco/zero"
"""The pair with an annotation of id 0, which pycocotools counts as missed although it was detected."""

PAIRS = (
    "coco_val2014_100/bbox", "coco_val2014_100/segm", "coco_val2014_100/segm-as-bbox", "fce/gt_dataset/bbox",
    "fce/gt_dataset/segm", "fce/keypoints", "padilla/test_coco_eval", "sahi/coco_evaluate", "hotcoco/basic",
    "hotcoco/edge", ZERO, "coco_open/d2go_train", "coco_open/d2go_val",
)  # fmt: skip

BOX_NAMES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
KEYPOINT_NAMES = (
    "AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large",
)  # fmt: skip


def printed_stats(
    shared_data: Path, pair: dict[str, Any], capsys: pytest.CaptureFixture[str], *options: str
) -> list[float]:
    """COCO's metrics in COCO's order from the output of the command, -1 for undefined."""
    ground_truth, results = shared_data / pair["gt"], shared_data / pair["dt"]
    for file in (ground_truth, results):
        if not file.is_file():
            pytest.skip(f"{file.name} is not present")
    kind = pair["iouType"]
    files = ["--predictions", str(results), "--ground-truth", str(ground_truth)]
    assert main(["evaluate", *files, "--iou-type", kind, "--json", *options]) == 0
    stats = json.loads(capsys.readouterr().out)[kind]
    names = KEYPOINT_NAMES if kind == "keypoints" else BOX_NAMES
    return [-1.0 if stats[name] is None else stats[name] for name in names]


@pytest.fixture(scope="module")
def expected(shared_data: Path) -> dict[str, Any]:
    pairs: dict[str, Any] = json.loads((shared_data / "_expected/pycocotools_stats.json").read_text())
    assert set(pairs) == set(PAIRS)
    return pairs


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_published_numbers(
    name: str, reference: bool, expected: dict[str, Any], shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stats = printed_stats(shared_data, expected[name], capsys, *(["--reference"] if reference else []))
    equal = [round(value, 6) for value in stats] == pytest.approx(expected[name]["stats"], abs=1e-9)
    # without --reference the object with id 0 is matched, so this one pair must differ
    assert equal == (reference or name != ZERO), f"{stats}, expected {expected[name]['stats']}"


def test_an_object_with_id_0_is_matched(
    expected: dict[str, Any], shared_data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pair = expected[ZERO]
    stats = printed_stats(shared_data, pair, capsys)
    assert stats[0] > pair["stats"][0] + 0.2
    ground_truth = json.loads((shared_data / pair["gt"]).read_text())
    for annotation in ground_truth["annotations"]:
        annotation["id"] += 1
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth))
    renumbered = {**pair, "gt": str(tmp_path / "gt.json"), "dt": str(shared_data / pair["dt"])}
    assert printed_stats(shared_data, renumbered, capsys, "--reference") == pytest.approx(stats, abs=1e-12)
