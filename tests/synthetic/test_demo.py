"""The demo set: exact ground truth, reproducible from the seed, and data/demo equals what the code renders."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detseg.errors import DataError
from detseg.runtime.seeds import derive_seed
from detseg.synthetic.demo import render as demo
from detseg.synthetic.demo.__main__ import main
from detseg.synthetic.demo.bench import TEXTURES, make_bench
from detseg.synthetic.demo.clutter import CLUTTER, make_clutter
from detseg.synthetic.demo.parts import CLASSES, SHAPE_FAMILIES, make_part
from detseg.synthetic.demo.shading import Light, Patch, paint

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data" / "demo"
SAME_IMAGE = 8.0  # mean difference in grey levels: JPEG, and differences of interpolation between OpenCV versions
LIGHT = Light((0.4, -0.5, 0.768), (1.0, 1.0, 1.0), 0.4, 0.3)


def ground_truth(folder: Path, split: str) -> dict[str, Any]:
    return json.loads((folder / f"instances_{split}.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=16)
def rendered(seed: int, split: int, index: int) -> demo.Scene:
    return demo.draw_scene(derive_seed(seed, split, index))


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "set"
    demo.render(folder, train=2, val=1, seed=11)
    return folder


# a scene


@pytest.mark.parametrize("index", range(3))
def test_ground_truth_of_a_scene_is_exact(index: int) -> None:
    scene = rendered(11, 0, index)
    count = len(scene.labels)
    assert scene.image.dtype == np.uint8
    assert scene.masks.shape == (count, *scene.image.shape[:2])
    assert scene.masks.dtype == np.uint8
    assert set(scene.labels.tolist()) <= {1, 2, 3}
    assert (scene.masks.sum(axis=0) <= 1).all()  # no pixel belongs to two instances
    assert (scene.masks.sum(axis=(1, 2)) >= demo.MIN_PIXELS).all()


def test_pixels_are_a_function_of_the_seed() -> None:
    first, again, other = rendered(11, 0, 0), demo.draw_scene(derive_seed(11, 0, 0)), rendered(1, 0, 0)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.masks, again.masks)
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def square(label: int, left: int, side: int = 60) -> Patch:
    alpha = np.ones((side, side), np.bool_)
    return Patch(label, 30, left, alpha, np.ones((side, side, 3), np.float32), 3.0)


@pytest.mark.parametrize(
    ("lefts", "visible"),
    [
        ([], True),
        ([30], True),
        ([30, 60], True),  # half of the lower one is covered
        ([30, 36], False),  # nine tenths are
        ([-40], False),  # one third is inside the frame
        ([-30], True),
    ],
)
def test_parts_that_cover_too_much_are_not_accepted(lefts: list[int], visible: bool) -> None:
    assert demo._all_visible([square(1, left) for left in lefts], (150, 150)) is visible


def test_slivers_are_removed_from_the_bench_and_the_image() -> None:
    sliver = Patch(2, 0, 0, np.ones((300, 1), np.bool_), np.ones((300, 1, 3), np.float32), 1.0)
    remaining, owner = demo._drop_slivers([square(1, 30), sliver], (300, 300))
    assert [patch.label for patch in remaining] == [1]
    assert owner.shape == (100, 100)
    assert owner.sum() == 20 * 20  # 60 canvas pixels are 20 of the image
    assert owner[10:30, 10:30].all()


def test_owner_of_a_pixel_covers_more_than_half_of_it() -> None:
    patches = [square(1, 31), square(2, 91)]  # both start one canvas pixel after the start of an image pixel
    _, owner = demo._drop_slivers(patches, (150, 300))
    assert owner[15, 9:52].tolist() == [0, *[1] * 20, *[2] * 20, 0, 0]


def test_patches_far_outside_change_nothing() -> None:
    canvas = np.ones((30, 40, 3), np.float32)
    for left in (-500, 500):
        paint(canvas, square(1, left), LIGHT)
    assert (canvas == 1).all()


# parts, clutter, benches


@pytest.mark.parametrize("family", SHAPE_FAMILIES)
def test_every_family_has_the_label_of_its_class(family: str) -> None:
    part = make_part(np.random.default_rng(0), family, 8, 9.0, LIGHT, (0.1, -0.2))
    assert CLASSES[part.label - 1] == family.split("_")[0]
    assert np.isfinite(part.rgb).all()
    assert part.rgb[part.alpha].mean() > 0.01
    holes = cv2.connectedComponents(1 - np.pad(part.alpha, 1).astype(np.uint8))[0] - 2
    assert holes == (0 if part.label == 1 or family == "washer_split" else 1)


@pytest.mark.parametrize("name", CLUTTER)
def test_clutter_has_no_label(name: str) -> None:
    piece = make_clutter(np.random.default_rng(1), name, 6.0, LIGHT)
    assert piece.label == 0
    assert piece.alpha.any()
    assert np.isfinite(piece.rgb).all()


@pytest.mark.parametrize("name", TEXTURES)
def test_bench_has_texture(name: str) -> None:
    bench = make_bench(np.random.default_rng(2), name, (90, 120), 6.0, LIGHT)
    assert bench.shape == (90, 120, 3)
    assert bench.dtype == np.float32
    assert bench.min() >= 0
    assert bench.std() > 0.003


# a folder


def test_rendering_is_reproducible(small_set: Path, tmp_path: Path) -> None:
    demo.render(tmp_path / "again", train=2, val=1, seed=11)
    for file in sorted(path.relative_to(small_set) for path in small_set.rglob("*") if path.is_file()):
        assert (small_set / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_first_images_are_the_same_in_a_smaller_set(small_set: Path, tmp_path: Path) -> None:
    demo.render(tmp_path / "smaller", train=1, val=0, seed=11)
    smaller, larger = ground_truth(tmp_path / "smaller", "train"), ground_truth(small_set, "train")
    assert smaller["annotations"] == larger["annotations"][: len(smaller["annotations"])]
    assert ground_truth(tmp_path / "smaller", "val")["images"] == []


def test_another_seed_renders_another_set(small_set: Path, tmp_path: Path) -> None:
    demo.render(tmp_path / "other", train=1, val=0, seed=6)
    assert (
        ground_truth(tmp_path / "other", "train")["annotations"][0]
        != ground_truth(small_set, "train")["annotations"][0]
    )


def test_non_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        demo.render(tmp_path, train=1, val=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    scene = rendered(11, 0, 0)
    monkeypatch.setattr(demo, "draw_scene", lambda seed: scene)
    main([str(tmp_path / "new"), "--train", "1", "--val", "0"])
    assert capsys.readouterr().out == f"{tmp_path / 'new'}: 1 + 0 images\n"
    assert len(ground_truth(tmp_path / "new", "train")["images"]) == 1


def test_torch_is_not_imported() -> None:
    code = "import sys, detseg.synthetic.demo.render; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# location of the set


def test_checkout_contains_the_set() -> None:
    assert demo.demo_folder() == SHIPPED


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of an installed detseg without data/demo; rendered sets are small."""
    render, scene = demo.render, rendered(11, 0, 0)
    monkeypatch.setattr(demo, "draw_scene", lambda seed: scene)
    monkeypatch.setattr(
        demo, "__file__", str(tmp_path / "site-packages" / "detseg" / "synthetic" / "demo" / "render.py")
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "render", lambda folder: render(folder, train=1, val=1))
    return tmp_path / "cache" / "detseg"


def test_installed_package_renders_once(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = demo.demo_folder()
    assert folder == installed / "demo-v1"
    assert len(ground_truth(folder, "val")["images"]) == 1
    assert [path.name for path in installed.iterdir()] == ["demo-v1"]
    monkeypatch.setattr(demo, "render", None)  # a second rendering would be a TypeError
    assert demo.demo_folder() == folder


def test_interrupted_rendering_leaves_nothing(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "train").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "render", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo.demo_folder()
    assert list(installed.iterdir()) == []
    assert demo.demo_folder() == installed / "demo-v1"


def test_another_process_was_faster(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render = demo.render

    def slow(folder: Path) -> None:
        render(folder)
        render(installed / "demo-v1")  # type: ignore[call-arg]

    monkeypatch.setattr(demo, "render", slow)
    assert demo.demo_folder() == installed / "demo-v1"
    assert [path.name for path in installed.iterdir()] == ["demo-v1"]


# the shipped set


def test_shipped_set_has_varied_sizes_and_classes() -> None:
    sides: list[float] = []
    empty = 0
    for split, count in (("train", 120), ("val", 40)):
        value = ground_truth(SHIPPED, split)
        assert [category["name"] for category in value["categories"]] == list(CLASSES)
        assert len(value["images"]) == count == len(list((SHIPPED / split).iterdir()))
        per_class = np.bincount([a["category_id"] for a in value["annotations"]], minlength=4)
        assert (per_class[1:] >= count).all()
        per_image = {image["id"]: 0 for image in value["images"]}
        for annotation in value["annotations"]:
            per_image[annotation["image_id"]] += 1
        assert max(per_image.values()) == 9
        empty += sum(n == 0 for n in per_image.values())
        sides += [max(a["bbox"][2:]) for a in value["annotations"]]
    assert 0.05 <= empty / 160 <= 0.12
    assert np.percentile(sides, 95) > 4 * np.percentile(sides, 5)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 4_000_000


@pytest.mark.parametrize("split", ["train", "val"])
def test_shipped_annotations_are_consistent(split: str) -> None:
    value = ground_truth(SHIPPED, split)
    images = {image["id"]: image for image in value["images"]}
    ids = [annotation["id"] for annotation in value["annotations"]]
    assert len(set(ids)) == len(ids)
    assert 0 not in ids
    for annotation in value["annotations"]:
        rle, image = annotation["segmentation"], images[annotation["image_id"]]
        assert rle["size"] == [image["height"], image["width"]]
        assert coco_mask.area(rle) == annotation["area"] >= demo.MIN_PIXELS
        assert coco_mask.toBbox(rle).tolist() == annotation["bbox"]
    for image in value["images"]:
        assert cv2.imread(str(SHIPPED / image["file_name"])).shape[:2] == (image["height"], image["width"])


def assert_is_rendered(split: str, index: int) -> None:
    value = ground_truth(SHIPPED, split)
    image = value["images"][index]
    scene = rendered(0, demo.SPLITS.index(split), index)
    rendered_annotations = list(demo._annotations(scene, image["id"], 0))
    shipped = [a for a in value["annotations"] if a["image_id"] == image["id"]]
    assert [{**a, "id": 0} for a in rendered_annotations] == [{**a, "id": 0} for a in shipped]
    stored = cv2.imread(str(SHIPPED / image["file_name"]))[..., ::-1].astype(float)
    assert np.abs(stored - scene.image).mean() < SAME_IMAGE
    control = cv2.resize(rendered(1, 0, index).image, stored.shape[1::-1])
    assert np.abs(stored - control).mean() > SAME_IMAGE


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("train", 119), ("val", 1)])
def test_shipped_set_equals_what_the_code_renders(split: str, index: int) -> None:
    assert_is_rendered(split, index)


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("train", 120), ("val", 40)])
def test_whole_shipped_set_equals_what_the_code_renders(split: str, count: int) -> None:
    for index in range(count):
        assert_is_rendered(split, index)
