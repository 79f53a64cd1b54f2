"""Render one labelled image from a seed: textured, lit, overlapping shapes of many families, and unlabelled clutter."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from detseg.synthetic.scenes.contours import SHAPE_FAMILIES, Contour, Rng, make_contour, rod, torn_sheet
from detseg.synthetic.scenes.surface import (
    Colour,
    Lamp,
    Piece,
    blend,
    coverage_of,
    draw_colour,
    light_surface,
    make_piece,
    overlap,
    related_colour,
)
from detseg.synthetic.scenes.textures import TEXTURES, Field, lattice_noise, make_texture

Shape = tuple[int, int, Field]

MIN_VISIBLE = 0.35  # minimum visible fraction of a shape
MIN_PIXELS = 20  # minimum visible pixels of a shape
TRIES = 3  # positions that are tried before a shape is skipped
NEGATIVES = 0.03  # fraction of scenes without a shape


@dataclass(frozen=True)
class Scene:
    """One image and its ground truth.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        labels: int64 [N], 1..K in the order of ``SHAPE_FAMILIES``.
        masks: uint8 [N, H, W] in {0, 1}, the pixels of which an instance covers more than half and no instance above it
            does; no mask is empty.
    """

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    masks: npt.NDArray[np.uint8]


def draw_scene(seed: int, size_hw: tuple[int, int] = (160, 160)) -> Scene:
    """Render the scene of a seed and size; it depends only on them."""
    rng = np.random.default_rng(seed)
    lamp = Lamp.draw(rng)
    image = _ground(rng, size_hw, lamp)
    shapes, labels = _lay_out(rng, size_hw)
    for sheet in _sheets(rng, size_hw):
        blend(image, make_piece(rng, sheet, lamp, draw_colour(rng)), lamp)
    palette = [draw_colour(rng) for _ in range(int(rng.integers(1, 6)))]
    for shape, label in zip(shapes, labels, strict=True):
        if label < 0:
            blend(image, _strand_piece(rng, shape, lamp), lamp)
        else:
            base = related_colour(rng, palette[int(rng.integers(len(palette)))])
            blend(image, make_piece(rng, shape, lamp, base), lamp)
    owner = _owners(shapes, size_hw)
    instances = [number for number, label in enumerate(labels, 1) if label > 0]
    return Scene(
        _photograph(rng, image),
        np.array([labels[number - 1] for number in instances], np.int64),
        np.array([owner == number for number in instances], np.uint8).reshape(-1, *size_hw),
    )


def _ground(rng: Rng, size_hw: tuple[int, int], lamp: Lamp) -> Colour:
    """The background surface: up to two textures over one or two colours, with some relief."""
    base = draw_colour(rng)
    albedo = np.broadcast_to(base, (*size_hw, 3)).astype(np.float32)
    height = np.zeros(size_hw, np.float32)
    for _ in range(int(rng.integers(0, 3))):
        grain = float(np.exp(rng.uniform(np.log(1.5), np.log(40))))
        field = make_texture(rng, str(rng.choice(list(TEXTURES))), size_hw, grain)
        albedo += (related_colour(rng, base) - albedo) * (np.float32(rng.uniform(0, 1)) * field)[..., None]
        height += np.float32(rng.choice([0.0, 0.8]) * rng.uniform(0, 1) * min(grain, 5)) * field
    lit = light_surface(rng, cv2.GaussianBlur(height, (3, 3), 0.7), albedo, lamp, 0.0, float(rng.uniform(0, 0.2)))
    if rng.random() < 0.4:
        lit *= 1 - np.float32(rng.uniform(0.1, 0.6)) * lattice_noise(rng, size_hw, float(max(size_hw)))[..., None]
    return lit


def _sheets(rng: Rng, size_hw: tuple[int, int]) -> list[Shape]:
    """Up to three unlabelled objects under the shapes: bars wider than the image, torn sheets, rods of pieces."""
    sheets = []
    side = float(max(size_hw))
    for _ in range(int(rng.choice(4, p=[0.35, 0.3, 0.2, 0.15]))):
        kind = rng.choice(["bar", "sheet", "rod"])
        if kind == "bar":
            contours, scale = [_bar(rng)], side
        elif kind == "sheet":
            contours, scale = [torn_sheet(rng)], side * rng.uniform(0.15, 0.5)
        else:
            contours, scale = rod(rng), side * rng.uniform(0.2, 0.8)
        x, y = rng.uniform(0, 1, 2) * size_hw[::-1]
        sheets += [coverage_of(contour, float(scale), (float(x), float(y))) for contour in contours]
    return sheets


def _bar(rng: Rng) -> Contour:
    half = rng.uniform(0.04, 0.3)
    bar = np.array([[-1.5, -half], [1.5, -half], [1.5, half], [-1.5, half]])
    angle = rng.uniform(0, np.pi)
    return [bar @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])]


def _lay_out(rng: Rng, size_hw: tuple[int, int]) -> tuple[list[Shape], list[int]]:
    """Positioned shapes and their labels, from bottom to top; label -1 for a strand. Every shape stays visible."""
    shapes: list[Shape] = []
    labels: list[int] = []
    side = min(size_hw)
    typical = float(np.exp(rng.uniform(np.log(0.05), np.log(0.3)))) * side  # radius
    capacity = 0.8 * size_hw[0] * size_hw[1] / (2 * typical) ** 2
    count = 0 if rng.random() < NEGATIVES else int(rng.integers(2, int(4 + min(capacity, 16))))
    few = rng.random() < 0.3  # a scene of one to three families, like most custom data
    families = rng.choice(len(SHAPE_FAMILIES), int(rng.integers(1, 4))) if few else np.arange(len(SHAPE_FAMILIES))
    owner = np.zeros(size_hw, np.int16)
    sizes: list[int] = []
    for _ in range(count):
        label = int(families[int(rng.integers(len(families)))]) + 1
        radius = float(np.clip(typical * np.exp(rng.normal(0, 0.4)), 4.5, 0.48 * side))
        contour = make_contour(rng, SHAPE_FAMILIES[label - 1])
        for _ in range(TRIES):
            shape = coverage_of(contour, radius, _centre(rng, size_hw, shapes, labels, radius))
            if _leaves_all_visible(owner, shape, sizes, labels):
                _add(owner, shape, label, shapes, labels, sizes)
                break
        if rng.random() < 0.06:
            strand = _strand(rng, size_hw)
            if _leaves_all_visible(owner, strand, sizes, labels, is_strand=True):
                _add(owner, strand, -1, shapes, labels, sizes)
    return shapes, labels


def _centre(
    rng: Rng, size_hw: tuple[int, int], shapes: list[Shape], labels: list[int], radius: float
) -> tuple[float, float]:
    """A random position, sometimes near or on an existing shape; x, y in pixels."""
    labelled = [shape for shape, label in zip(shapes, labels, strict=True) if label > 0]
    if labelled and rng.random() < 0.4:
        top, left, coverage = labelled[int(rng.integers(len(labelled)))]
        distance = rng.uniform(0.3, 1.1) * (radius + max(coverage.shape) / 2)
        angle = rng.uniform(0, 2 * np.pi)
        x = left + coverage.shape[1] / 2 + distance * np.cos(angle)
        y = top + coverage.shape[0] / 2 + distance * np.sin(angle)
        return float(np.clip(x, 0, size_hw[1])), float(np.clip(y, 0, size_hw[0]))
    return float(rng.uniform(0, size_hw[1])), float(rng.uniform(0, size_hw[0]))


def _leaves_all_visible(
    owner: npt.NDArray[np.int16], shape: Shape, sizes: list[int], labels: list[int], is_strand: bool = False
) -> bool:
    """Whether enough of the new shape is visible and enough of every shape below remains visible."""
    top, left, coverage = shape
    image_window, shape_window = overlap(owner, top, left, coverage.shape)
    solid = coverage > 0.5
    covered = solid[shape_window]
    if not is_strand and covered.sum() < max(MIN_PIXELS, MIN_VISIBLE * solid.sum()):
        return False
    trial = owner.copy()
    trial[image_window][covered] = len(sizes) + 1
    visible = np.bincount(trial.ravel(), minlength=len(sizes) + 2)[1:-1]
    return all(
        count >= max(MIN_PIXELS, MIN_VISIBLE * size)
        for count, size, label in zip(visible, sizes, labels, strict=True)
        if label > 0
    )


def _add(
    owner: npt.NDArray[np.int16], shape: Shape, label: int, shapes: list[Shape], labels: list[int], sizes: list[int]
) -> None:
    top, left, coverage = shape
    image_window, shape_window = overlap(owner, top, left, coverage.shape)
    owner[image_window][coverage[shape_window] > 0.5] = len(sizes) + 1
    shapes.append(shape)
    labels.append(label)
    sizes.append(int((coverage > 0.5).sum()))


def _owners(shapes: list[Shape], size_hw: tuple[int, int]) -> npt.NDArray[np.int16]:
    """int16 [H, W]: 1 + index of the topmost shape that covers more than half of a pixel, 0 for the background."""
    owner = np.zeros(size_hw, np.int16)
    for number, (top, left, coverage) in enumerate(shapes, 1):
        image_window, shape_window = overlap(owner, top, left, coverage.shape)
        owner[image_window][coverage[shape_window] > 0.5] = number
    return owner


def _strand(rng: Rng, size_hw: tuple[int, int]) -> Shape:
    """A winding line across the image."""
    turns = np.cumsum(rng.normal(0, 0.35, 12))
    heading = rng.uniform(0, 2 * np.pi) + np.interp(np.linspace(0, 11, 60), np.arange(12), turns)
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * rng.uniform(0.4, 1.6) * max(size_hw) / 60
    points = np.cumsum(steps, axis=0) + rng.uniform(0, 1, 2) * size_hw[::-1]
    line = np.zeros(size_hw, np.uint8)
    thick = int(rng.integers(1, 6))
    cv2.polylines(line, [np.round(points * 16).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 4)
    return 0, 0, np.asarray(line, np.float32) / np.float32(255)


def _strand_piece(rng: Rng, strand: Shape, lamp: Lamp) -> Piece:
    """A strand in one colour, round like a wire."""
    top, left, coverage = strand
    depth = cv2.distanceTransform((coverage > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    albedo = np.broadcast_to(draw_colour(rng), (*coverage.shape, 3)).astype(np.float32)
    rgb = light_surface(rng, cv2.GaussianBlur(depth, (3, 3), 0.8), albedo, lamp, 0.0, float(rng.uniform(0, 0.6)))
    return Piece(top, left, coverage, rgb, float(rng.uniform(0.5, 4)))


def _photograph(rng: Rng, image: Colour) -> npt.NDArray[np.uint8]:
    """Simulate a camera: exposure, vignette, blur, gamma, noise, sometimes JPEG compression."""
    level = float(np.exp(rng.normal(np.log(0.25), 0.35))) / max(float(image.mean()), 0.03)
    image = image * np.float32(np.clip(level, 0.4, 3.0) ** 0.7)
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.1)))
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    image = image * (1 - np.float32(rng.uniform(0, 0.35)) * (x * x + y * y) / 2)[..., None]
    encoded = np.clip(image, 0, 1) ** np.float32(1 / rng.uniform(1.8, 2.6))
    if rng.random() < 0.08:
        encoded = np.repeat(encoded.mean(-1, keepdims=True), 3, axis=-1)
    encoded = encoded + np.float32(rng.uniform(0, 0.03)) * rng.standard_normal(encoded.shape, dtype=np.float32)
    result = np.asarray(np.clip(np.round(encoded * 255), 0, 255), np.uint8)
    if rng.random() < 0.3:
        quality = int(rng.integers(40, 95))
        _, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, quality])
        result = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(result)
