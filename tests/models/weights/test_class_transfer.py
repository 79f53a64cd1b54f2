"""Test class transfer: which rows of the weights each class gets, and that they are copied."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights, MaskRCNN_ResNet50_FPN_Weights

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models import MODELS, build_model, describe, load_weights
from detseg.models.weights.class_transfer import (
    ClassMatch,
    class_pairs,
    class_tensors,
    copy_class_weights,
    head_lines,
    match_class_weights,
    match_row_numbers,
)
from detseg.models.weights.published import cache_path
from detseg.models.weights.starting_weights import StartingWeights
from detseg.models.weights.synonyms import AMBIGUOUS, KINDS, SAME, plain_name

SLIM = "maskrcnn_mobilenet_v3_large_fpn_slim"
COCO = StartingWeights.open("coco", "maskrcnn_resnet50_fpn").classes.names  # type: ignore[union-attr]
VOC = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
    **{name: name for name in ("bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dog")},
    **{name: name for name in ("horse", "person", "sheep", "train")},
}


def matched_source(name: str, source: tuple[str, ...] = COCO) -> str:
    return match_class_weights([name], source, {})[0].source


# Names.


def test_cocos_rows_are_its_category_ids() -> None:
    assert len(COCO) == 91
    assert (COCO[0], COCO[1], COCO[12], COCO[13], COCO[90]) == ("", "person", "", "stop sign", "toothbrush")
    assert len([name for name in COCO if name]) == 80
    keypoint_classes = StartingWeights.open("coco", "keypointrcnn_resnet50_fpn").classes
    assert keypoint_classes is not None
    assert keypoint_classes.names == ("", "person")
    assert KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][0] == "no person"


def test_every_coco_name_matches_itself_only() -> None:
    names = [name for name in COCO if name]
    assert [match.row for match in match_class_weights(names, COCO, {})] == [COCO.index(name) for name in names]
    others = [[other for other in COCO if other != name] for name in names]
    assert {match_class_weights([name], rest, {})[0].source for name, rest in zip(names, others, strict=True)} == {""}


def test_the_synonym_lists_are_consistent() -> None:
    plain = {plain_name(name) for name in COCO if name}
    assert set(SAME.values()) | set(KINDS.values()) | set(AMBIGUOUS) <= plain
    assert not (set(SAME) | set(KINDS)) & plain
    assert not set(SAME) & set(KINDS)
    assert all(plain_name(word) == word for word in (*SAME, *KINDS))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", ""),
        ("person", "person"),
        *VOC.items(),
        ("Person", "person"),
        ("persons", "person"),
        ("Pedestrians", "person"),
        ("people", "person"),
        ("man", "person"),
        ("women", "person"),
        ("bike", "bicycle"),
        ("Cell_Phone", "cell phone"),
        ("mobile-phone", "cell phone"),
        ("TrafficLight", "traffic light"),
        ("POTTED  PLANTS", "potted plant"),
        ("buses", "bus"),
        ("benches", "bench"),
        ("knives", "knife"),
        ("teddies", "teddy bear"),
        ("scissor", "scissors"),
        ("TVs", "tv"),
        ("mouse", "mouse"),
        ("orange", "orange"),
        ("necktie", "tie"),
        ("mice", ""),
        ("mouses", ""),
        ("oranges", ""),
        ("ties", ""),
        ("bat", ""),
        ("crane", ""),
        ("glasses", ""),
        ("table", ""),
        ("monitor", ""),
        ("worker", ""),
        ("bolt", ""),
        ("N/A", ""),
        ("__background__", ""),
        ("-", ""),
    ],
)
def test_matches_with_coco_names(name: str, expected: str) -> None:
    assert matched_source(name) == expected


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("person", (), ""),
        ("person", ("",), ""),
        ("person", ("", "pedestrian"), "pedestrian"),
        ("aeroplane", ("", "plane"), "plane"),
        ("bolts", ("", "bolt"), "bolt"),
        ("man", ("", "woman"), ""),  # both are people, but different ones
        ("person", ("", "man"), ""),  # not symmetric
        ("man", ("", "pedestrian"), "pedestrian"),
        ("A", ("", "a", "A"), "A"),
        ("a b", ("", "a_b", "A-B"), ""),  # two match
        ("people", ("", "person", "pedestrian"), ""),
        ("type 10", ("", "type 1_0"), ""),
        ("type 1-0", ("", "type_1_0"), ""),
        ("glasses", ("", "glass"), ""),
        ("as", ("", "a"), ""),
        ("princess", ("", "princes"), ""),
        ("-1", ("", "1"), ""),
        ("螺栓", ("", "螺母", "螺栓"), "螺栓"),
    ],
)
def test_matches_with_other_names(name: str, source: tuple[str, ...], expected: str) -> None:
    assert matched_source(name, source) == expected


def test_several_classes_may_get_the_same_rows() -> None:
    matches = match_class_weights(["man", "bolt", "woman"], COCO, {})
    assert [(match.source, match.row) for match in matches] == [("person", 1), ("", -1), ("person", 1)]


def test_the_user_overrides_matches() -> None:
    names = ["person", "worker", "mouse"]
    overrides = {"worker": "Pedestrian", "mouse": "", "person": "dog"}
    matches = match_class_weights(names, COCO, overrides, coco=True)
    assert [match.text() for match in matches] == [
        "person <- dog (--class-transfer)",
        "worker <- person (--class-transfer)",
        "mouse randomly initialized (--class-transfer)",
    ]
    with pytest.raises(
        DataError,
        match=r"--class-transfer worker=persn: the weights have no class 'persn'; their classes are person, bic",
    ):
        match_class_weights(names, COCO, {"worker": "persn"})
    with pytest.raises(
        DataError,
        match=r"--class-transfer wrker=person: the data has no class 'wrker'; its classes are person, worker, m",
    ):
        match_class_weights(names, COCO, {"wrker": "person"})
    with pytest.raises(DataError, match="have no class 'N/A'"):
        match_class_weights(names, COCO, {"worker": "N/A"})


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (None, {}),
        ("", {}),
        ([], {}),
        ("worker=person", {"worker": "person"}),
        (" worker = cell phone , bolt= ,", {"worker": "cell phone", "bolt": ""}),
        (["worker=a,b"], {"worker": "a,b"}),
        ("Worker=person", {"worker": "person"}),
        ("colour=red=colour=blue", {"colour=red": "colour=blue"}),
        ("bolt=x,bolt=x", {"bolt": "x"}),
    ],
)
def test_pairs(option: Any, expected: dict[str, str]) -> None:
    assert class_pairs(option, ["worker", "bolt", "colour=red"]) == expected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("worker", r"--class-transfer worker: use CLASS=PRETRAINED CLASS"),
        ("nut=person", r"no class 'nut'; its classes are worker, bolt"),
        ("=person", r"no class ''"),
        ("bolt=a,bolt=b", r"bolt has two values, 'a' and 'b'; use one"),
    ],
)
def test_invalid_pairs_are_refused(option: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        class_pairs(option, ["worker", "bolt"])


@pytest.mark.parametrize(
    ("rows", "overrides", "expected"),
    [
        (3, {}, [1, 2]),
        (3, {"ant": "2"}, [2, 2]),
        (3, {"bee": ""}, [1, -1]),
        (91, {}, [-1, -1]),
        (91, {"bee": "90"}, [-1, 90]),
        (1, {}, [-1, -1]),
    ],
)
def test_rows_without_names_are_matched_by_number(rows: int, overrides: dict[str, str], expected: list[int]) -> None:
    matches = match_row_numbers(["ant", "bee"], rows, overrides, background=True)
    assert [match.row for match in matches] == expected


@pytest.mark.parametrize("number", ["0", "91", "person", "-1"])
def test_missing_rows_are_refused(number: str) -> None:
    with pytest.raises(DataError, match=r"the weights have no row .*; their rows are 1 to 90"):
        match_row_numbers(["ant"], 91, {"ant": number}, background=True)


def test_printed_lines() -> None:
    names = ["person", "worker", "bolt"]
    assert head_lines(match_class_weights(names, COCO, {"worker": "person"}), by_name=True) == [
        "heads: person <- person, worker <- person (--class-transfer), bolt randomly initialized",
        "  (--class-transfer bolt=X initializes a class from a pretrained class)",
    ]
    assert head_lines(match_class_weights(["cats"], COCO, {}), by_name=True) == [
        "heads: every class is initialized from a pretrained class: cats <- cat (synonym)"
    ]
    assert (
        "mouse <- mouse (COCO means a computer mouse; if not: --class-transfer mouse=)"
        in head_lines(match_class_weights(["mouse"], COCO, {}, coco=True), by_name=True)[0]
    )
    assert "person randomly initialized (man and Man both match: choose with" not in matched_source("man")
    (line, _) = head_lines(match_class_weights(["MAN"], ("", "man", "Man"), {}), by_name=True)
    assert line == "heads: MAN randomly initialized (man and Man both match: choose with --class-transfer MAN=man)"
    many = [ClassMatch(f"c{index}") for index in range(20)]
    assert head_lines(many, by_name=True)[0].endswith("c10, c11 and 8 more randomly initialized")


# Rows.


@pytest.mark.parametrize("rest", [(), (5,), (5, 1, 1), (5, 3, 3)])
@pytest.mark.parametrize(("anchors", "per_class"), [(1, 1), (1, 4), (3, 1)])
@pytest.mark.parametrize("pairs", [[], [(0, 0)], [(0, 0), (3, 1), (1, 6), (2, 6)]])
def test_rows_are_copied(rest: Any, anchors: int, per_class: int, pairs: Any) -> None:
    target_rows, source_rows = 4, 7
    target = torch.rand(anchors * target_rows * per_class, *rest)
    source = torch.rand(anchors * source_rows * per_class, *rest)
    before = target.clone(), source.clone()
    expected = target.clone()
    for anchor in range(anchors):
        for row, source_row in pairs:
            for part in range(per_class):
                index = (anchor * source_rows + source_row) * per_class + part
                expected[(anchor * target_rows + row) * per_class + part] = source[index]
    rows = (target_rows, source_rows)
    result = copy_class_weights(target, source, pairs, rows=rows, per_class=per_class)
    assert torch.equal(result, expected)
    assert torch.equal(target, before[0])
    assert torch.equal(source, before[1])
    assert copy_class_weights(target, source.half(), pairs, rows=rows, per_class=per_class).dtype == torch.float32


def checkpoint(path: Path, model: Any) -> str:
    tensors = {f"model.{name}": tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    header = {"schema": 1, "model": model.description.to_dict()}
    safetensors.torch.save_file(tensors, path, metadata={"detseg": json.dumps(header)})
    return str(path)


def loaded(like: Any, names: tuple[str, ...], weights: str, **options: Any) -> Any:
    """Build a model like ``like`` for other classes, load the weights, and return it with the report."""
    model = build_model(replace(like.description, class_map=ClassMap(names)))
    return model, load_weights(model, weights, **options)


def test_classes_in_another_order_have_the_same_predictions(small: Any, tmp_path: Path) -> None:
    """A checkpoint of ant, bee, cat, loaded for cat, ant, bee, has equal predictions with the new labels."""
    like = small.detector(SLIM).eval()
    path = checkpoint(tmp_path / "a.safetensors", like)
    model, report = loaded(like, ("cats", "Ant", "bee"), path)
    assert report.matched == (("cats", "cat"), ("Ant", "ant"), ("bee", "bee"))
    assert report.missing == report.mismatched == report.by_class == ()
    images, _ = small.batch([(96, 128), (64, 64)])
    new_label = np.array([0, 2, 3, 1])
    for old, new in zip(like(images), model.eval()(images), strict=True):
        assert len(old.scores)
        order = np.lexsort((new_label[old.labels], -old.scores))
        again = np.lexsort((new.labels, -new.scores))
        np.testing.assert_array_equal(new_label[old.labels][order], new.labels[again])
        np.testing.assert_allclose(old.scores[order], new.scores[again], rtol=1e-5)  # the order of summation differs
        np.testing.assert_array_equal(old.boxes[order], new.boxes[again])
        np.testing.assert_array_equal(old.mask_probs[order], new.mask_probs[again])
    in_order = build_model(model.description).eval()
    in_order.load_state_dict(like.state_dict())
    assert any(
        set(old.labels) != set(new.labels) or list(old.labels) != list(new_label[new.labels])
        for old, new in zip(in_order(images), model(images), strict=True)
    )  # control: rows in the old order belong to other classes


def test_a_subset_with_new_classes(small: Any, tmp_path: Path) -> None:
    like = small.detector(SLIM).eval()
    path = checkpoint(tmp_path / "a.safetensors", like)
    torch.manual_seed(5)
    model, report = loaded(like, ("bolt", "cat", "worker", "nut"), path, class_transfer={"worker": "bee", "nut": ""})
    torch.manual_seed(5)
    fresh: Any = build_model(model.description)
    features = torch.rand(7, like.roi_heads.box_predictor.cls_score.in_features)
    with torch.no_grad():
        old, new, random = (m.roi_heads.box_predictor(features) for m in (like, model, fresh))
        for one, other, start in zip(old, new, random, strict=True):  # logits, then box deltas
            one, other, start = (t.view(7, rows, -1) for t, rows in ((one, 4), (other, 5), (start, 5)))
            assert torch.equal(other[:, [0, 2, 3]], one[:, [0, 3, 2]])
            assert not torch.equal(start[:, 2], other[:, 2])  # control
            if one.shape[2] == 1:
                assert torch.equal(other[:, [1, 4]], start[:, [1, 4]])
            else:  # box corrections of new classes: the mean of ant, bee and cat
                mean = one[:, 1:].mean(1, keepdim=True)
                torch.testing.assert_close(other[:, [1, 4]], mean.expand(7, 2, 4), atol=1e-6, rtol=1e-5)
    masks, old_masks = (m.state_dict()["roi_heads.mask_predictor.mask_fcn_logits.weight"] for m in (model, like))
    assert torch.equal(masks[[0, 2, 3]], old_masks[[0, 3, 2]])
    assert torch.equal(masks[1], masks[4])
    torch.testing.assert_close(masks[1], old_masks[1:].mean(0))
    assert report.matched == (("cat", "cat"), ("worker", "bee"))
    assert len(report.by_class) == 6
    lines = report.lines()
    assert "  loaded for some classes: 4 of 8 tensors of box head" in lines
    assert (
        "  heads: cat <- cat, worker <- bee (--class-transfer), bolt randomly initialized, "
        "nut randomly initialized (--class-transfer)" in lines
    )
    assert not any("box head" in line for line in lines if line.startswith("  started from scratch"))


def save_as_published(path: Path, state: dict[str, Tensor], *, half: bool = False) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: t.half() if half and t.is_floating_point() else t for name, t in state.items()}, path)
    return str(path)


@pytest.fixture
def published_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A random slim Mask R-CNN with 91 rows instead of torchvision's published one, in a separate cache."""
    weights = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(MODELS, SLIM, replace(MODELS[SLIM], coco=weights))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **_: torch.load(cache_path(url)))
    gaps = ClassMap(tuple(f"{row} {name}" for row, name in enumerate(COCO) if row))
    model = build_model(describe(SLIM, gaps, weights="none"))
    save_as_published(cache_path(weights.url), model.state_dict())
    return model


@pytest.mark.parametrize("source", ["coco", "path"])
def test_the_published_weights(published_model: Any, source: str) -> None:
    weights = "coco" if source == "coco" else str(cache_path(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url))
    names = ("bolt", "pedestrian", "tvmonitor")
    model: Any = build_model(describe(SLIM, ClassMap(names), weights=weights))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_weights(model, weights)
    assert report.matched == (("pedestrian", "person"), ("tvmonitor", "tv"))
    state, published = model.state_dict(), published_model.state_dict()
    layers = class_tensors(model, state)
    assert set(layers) == set(report.by_class)
    assert sorted(layers.values()) == [1, 1, 1, 1, 4, 4]
    for name, count in layers.items():
        new, coco, start = (t[name].view(rows, count, -1) for t, rows in ((state, 4), (published, 91), (before, 4)))
        assert torch.equal(new[[0, 2, 3]], coco[[0, 1, 72]])
        if "cls_score" in name:
            assert torch.equal(new[1], start[1])
        else:
            trained_rows = [row for row, label in enumerate(COCO) if label != ""]
            assert len(trained_rows) == 80
            torch.testing.assert_close(new[1], coco[trained_rows].mean(0))
            assert not torch.allclose(new[1], coco.mean(0), atol=1e-7)  # control: the gaps are not classes
        assert not torch.equal(new[2], coco[2])  # control


def test_a_file_without_class_names(small: Any, tmp_path: Path) -> None:
    like = small.detector(SLIM)
    path = save_as_published(tmp_path / "mine.pth", like.state_dict(), half=True)
    model, report = loaded(like, ("x", "y", "z"), path)  # the same number of classes: used in order
    assert report.missing == report.mismatched == report.by_class == ()
    assert "  heads: the weights have no class names; the rows of all 3 classes are used in order" in report.lines()
    name = "roi_heads.box_predictor.cls_score.weight"
    source = like.state_dict()[name].half().float()
    assert torch.equal(model.state_dict()[name], source)

    model, report = loaded(like, ("ant", "bee"), path)  # other classes: no assumptions
    assert len(report.mismatched) == 6
    assert report.matched == ()
    assert "    (--class-transfer ant=X initializes a class from a row number of the weights)" in report.lines()
    model, report = loaded(like, ("ant", "bee"), path, class_transfer={"bee": "3"})
    assert report.mismatched == ()
    assert torch.equal(model.state_dict()[name][[0, 2]], source[[0, 3]])
    assert report.matched == (("bee", "row 3"),)


ONE_STAGE = ["retinanet_mobilenet_v2_fpn_slim", "fcos_mobilenet_v2_fpn_slim", "ssdlite320_mobilenet_v3_large"]


@pytest.mark.parametrize("arch", ONE_STAGE)
def test_one_stage_heads(arch: str, tmp_path: Path) -> None:
    like: Any = build_model(describe(arch, ClassMap(("ant", "bee", "cat")), weights="none", image_size=64))
    model, report = loaded(like, ("cat", "bolt"), checkpoint(tmp_path / "a.safetensors", like))
    assert report.matched == (("cat", "cat"),)
    assert report.mismatched == report.missing == ()
    with torch.no_grad():
        features = [torch.randn_like(level) for level in like._neck(like._backbone(torch.rand(1, 3, 64, 64))).values()]
        old, new = (m.eval().head.classification_head(features) for m in (like, model))
    torch.testing.assert_close(new[..., [0, 1]], old[..., [0, 3]])
    assert not torch.allclose(new[..., 2], old[..., 2], rtol=1e-2)  # control


def test_a_classifiers_head(small: Any, tmp_path: Path) -> None:
    like = small.classifier().eval()
    model, report = loaded(like, ("cat", "bolt", "ant"), checkpoint(tmp_path / "a.safetensors", like))
    features = torch.rand(2, 512)
    with torch.no_grad():
        old, new = like.head(features), model.head(features)
    assert torch.equal(new[:, [0, 2]], old[:, [2, 0]])
    assert not torch.equal(new[:, 1], old[:, 1])  # control: the same number of classes, but bolt does not get bee's row
    assert report.matched == (("cat", "cat"), ("ant", "ant"))


@pytest.mark.parametrize("weights", ["none", "classifier"])
def test_class_transfer_without_class_rows_is_refused(small: Any, tmp_path: Path, weights: str) -> None:
    like = small.detector()
    if weights == "classifier":
        weights = checkpoint(tmp_path / "a.safetensors", small.classifier())
        assert loaded(like, ("ant",), weights)[1].rows == ()  # control: without class transfer there is no error
    with pytest.raises(DataError, match=r"--class-transfer ant=bee: .*remove the option"):
        loaded(like, ("ant",), weights, class_transfer={"ant": "bee"})


def test_layers_of_another_width_are_randomly_initialized(small: Any, tmp_path: Path) -> None:
    like = small.detector(SLIM)
    state = like.state_dict()
    for name in class_tensors(like, state):
        state[name] = torch.zeros(()) if name.endswith("bias") else state[name][:, :7]
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in state.items()}
    header = {"schema": 1, "model": like.description.to_dict()}
    path = str(tmp_path / "a.safetensors")
    safetensors.torch.save_file(tensors, path, metadata={"detseg": json.dumps(header)})
    _, report = loaded(like, ("ant", "bee"), path)
    assert len(report.mismatched) == 6
    assert report.rows == ()
