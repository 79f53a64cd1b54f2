"""Rendered scenes are reproducible and exact, and share nothing with the demo set."""

from __future__ import annotations

import ast
from pathlib import Path

import cv2
import numpy as np
import pytest

import detseg
from detseg.synthetic import scenes
from detseg.synthetic.demo import render as demo
from detseg.synthetic.scenes.contours import make_contour
from detseg.synthetic.scenes.scene import MIN_PIXELS
from detseg.synthetic.scenes.surface import coverage_of
from detseg.synthetic.scenes.textures import make_texture

PACKAGE = Path(detseg.__file__).parent


def shared(names: object, other_names: object) -> set[str]:
    """Names that two lists have in common, and common first words of names (bolt_hex_head: bolt)."""
    first, second = ({str(name) for name in values} for values in (names, other_names))  # type: ignore[attr-defined]
    return (first & second) | ({name.split("_")[0] for name in first} & {name.split("_")[0] for name in second})


def test_the_demo_set_shares_no_shape_family_with_the_scenes() -> None:
    assert len(scenes.SHAPE_FAMILIES) >= 20
    assert not shared(scenes.SHAPE_FAMILIES, demo.SHAPE_FAMILIES)
    assert not shared(scenes.SHAPE_FAMILIES, demo.CLUTTER)
    assert shared([*scenes.SHAPE_FAMILIES, "nut_square"], demo.SHAPE_FAMILIES), "control"


def test_the_demo_set_shares_no_texture_and_no_code_with_the_scenes() -> None:
    assert not shared(scenes.TEXTURES, demo.TEXTURES)
    functions = {id(function) for function in scenes.TEXTURES.values()}
    assert not functions & {id(function) for function in demo.TEXTURES.values()}
    assert not imported((PACKAGE / "synthetic" / "scenes").glob("*.py"), "detseg.synthetic.demo")
    assert not imported((PACKAGE / "synthetic" / "demo").glob("*.py"), "detseg.synthetic.scenes")
    assert imported((PACKAGE / "synthetic" / "demo").glob("render.py"), "detseg.synthetic.demo.bench"), "control"


def imported(files: object, prefix: str) -> set[str]:
    modules = set()
    for file in files:  # type: ignore[attr-defined]
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules |= {name for name in names if name.startswith(prefix)}
    return modules


def test_a_scene_is_a_function_of_its_seed_and_size() -> None:
    first, again, other = scenes.draw_scene(7), scenes.draw_scene(7), scenes.draw_scene(8)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.masks, again.masks)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)
    assert scenes.draw_scene(7, (96, 128)).image.shape == (96, 128, 3)


def test_scenes_are_valid() -> None:
    counts, labels = [], set()
    for seed in range(60):
        scene = scenes.draw_scene(seed, (112, 128))
        assert scene.image.shape == (112, 128, 3)
        assert scene.image.dtype == np.uint8
        assert scene.masks.shape == (len(scene.labels), 112, 128)
        assert scene.masks.dtype == np.uint8
        assert scene.masks.sum(0).max(initial=0) <= 1, "a pixel belongs to one instance"
        assert all(mask.sum() >= MIN_PIXELS for mask in scene.masks)
        assert ((scene.labels >= 1) & (scene.labels <= len(scenes.SHAPE_FAMILIES))).all()
        counts.append(len(scene.labels))
        labels |= set(scene.labels.tolist())
    assert 1 <= counts.count(0) < 10, "some scenes have no instance, most have"
    assert max(counts) >= 12
    assert len(labels) == len(scenes.SHAPE_FAMILIES), "every family occurs"


def test_masks_are_aligned_with_their_objects() -> None:
    """Colours change more at the outlines of masks than at the same outlines shifted."""
    on_outline, shifted = [], []
    for seed in range(40):
        scene = scenes.draw_scene(seed)
        steep = cv2.Laplacian(scene.image.astype(np.float32).mean(-1), cv2.CV_32F, ksize=3)
        for mask in scene.masks:
            edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
            on_outline.append(np.abs(steep[edge]).mean())
            shifted.append(np.abs(steep[np.roll(edge, (11, 13), (0, 1))]).mean())
    assert np.mean(on_outline) > 1.5 * np.mean(shifted)


@pytest.mark.parametrize("family", scenes.SHAPE_FAMILIES)
def test_contours_fill_the_unit_disc(family: str) -> None:
    for seed in range(20):
        contour = make_contour(np.random.default_rng(seed), family)
        points = np.concatenate(contour)
        assert np.isfinite(points).all()
        assert np.hypot(*points.T).max() == pytest.approx(1.0)
        _, _, coverage = coverage_of(contour, 40.0, (50.0, 50.0))
        share = coverage.sum() / (np.pi * 40**2)
        assert 0.02 < share < 0.95, (family, seed)


@pytest.mark.parametrize("family", ["frame", "porthole"])
def test_some_shapes_have_holes(family: str) -> None:
    contour = make_contour(np.random.default_rng(0), family)
    _, _, coverage = coverage_of(contour, 40.0, (50.0, 50.0))
    solid = (coverage > 0.5).astype(np.uint8)
    outlines, levels = cv2.findContours(solid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    assert len(outlines) == 2
    assert levels[0, :, 3].max() == 0, "one is inside the other"


def test_sum_of_coverage_is_the_area() -> None:
    square = [np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])]
    top, left, coverage = coverage_of(square, 21.0, (30.25, 40.5))
    assert coverage.sum() == pytest.approx(21.0**2, rel=0.03)
    rows, columns = np.nonzero(coverage > 0.5)
    assert (rows + top + 0.5).mean() == pytest.approx(40.5, abs=0.3)
    assert (columns + left + 0.5).mean() == pytest.approx(30.25, abs=0.3)


@pytest.mark.parametrize("name", scenes.TEXTURES)
def test_textures_are_between_0_and_1(name: str) -> None:
    for seed, (height, width) in enumerate(((5, 7), (64, 48), (160, 160))):
        field = make_texture(np.random.default_rng(seed), name, (height, width), 4.0)
        assert field.shape == (height, width)
        assert field.dtype == np.float32
        assert field.min() >= -1e-5
        assert field.max() <= 1 + 1e-5
    assert field.std() > 0.02, "it is not uniform"
