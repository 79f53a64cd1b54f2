"""Render outlines as lit objects that cast shadows: colour, relief and light.

Colours are linear float32 RGB; x points right, y down, z to the viewer. Lengths are pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from detseg.synthetic.scenes.contours import Contour, Rng
from detseg.synthetic.scenes.textures import TEXTURES, Field, make_texture

Colour = npt.NDArray[np.float32]

OVERSAMPLING = 4  # coverage is computed on this number of sub-pixels per side


@dataclass(frozen=True)
class Lamp:
    """The light of one scene.

    Attributes:
        towards: unit vector from the ground to the lamp.
        ambient: fraction of ambient light, in [0, 1].
        softness: blur of a shadow, as a fraction of its length.
        tint: linear RGB, near 1.
    """

    towards: npt.NDArray[np.float32]
    ambient: float
    softness: float
    tint: Colour

    @classmethod
    def draw(cls, rng: Rng) -> Lamp:
        """A lamp 25 to 75 degrees above the ground."""
        turn, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(25, 75))
        towards = (np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height), np.sin(height))
        tint = 1 + rng.uniform(-0.15, 0.15) * np.array([1, 0, -1])
        ambient, softness = float(rng.uniform(0.3, 0.75)), float(rng.uniform(0.1, 0.6))
        return cls(np.array(towards, np.float32), ambient, softness, tint.astype(np.float32))


@dataclass(frozen=True)
class Piece:
    """A lit object at a position in the image.

    Attributes:
        top, left: position of its arrays in the image; may be negative.
        coverage: float32 [h, w], fraction of each pixel that it covers.
        rgb: float32 [h, w, 3].
        lift: height above the ground in pixels, which determines the shadow.
    """

    top: int
    left: int
    coverage: Field
    rgb: Colour
    lift: float


def draw_colour(rng: Rng) -> Colour:
    """A random linear colour: saturated, pale, grey or dark."""
    saturation = rng.uniform(0, 1) ** 1.5
    srgb = colorsys.hsv_to_rgb(rng.uniform(), saturation, rng.uniform(0.12, 1.0))
    return np.array(srgb, np.float32) ** np.float32(2.2)


def related_colour(rng: Rng, colour: Colour) -> Colour:
    """Another shade of ``colour``, or sometimes an independent colour."""
    if rng.random() < 0.3:
        return draw_colour(rng)
    return np.clip(colour * np.float32(rng.uniform(0.35, 1.6)) + rng.normal(0, 0.02, 3).astype(np.float32), 0, 1)


def coverage_of(contour: Contour, scale: float, centre_xy: tuple[float, float]) -> tuple[int, int, Field]:
    """Top, left and coverage [h, w] of a contour of the unit disc, enlarged by ``scale`` around ``centre_xy``."""
    points = [polygon * scale + centre_xy for polygon in contour]
    all_points = np.concatenate(points)
    left, top = np.floor(all_points.min(0)).astype(int) - 1
    right, bottom = np.ceil(all_points.max(0)).astype(int) + 1
    oversampled = np.zeros(((bottom - top) * OVERSAMPLING, (right - left) * OVERSAMPLING), np.uint8)
    # OpenCV's pixel centres are integers, here they are at 0.5; 4 fractional bits
    moved = [
        np.round(((polygon - (left, top)) * OVERSAMPLING - 0.5) * 16).astype(np.int32).reshape(-1, 1, 2)
        for polygon in points
    ]
    cv2.fillPoly(oversampled, moved, 255, cv2.LINE_8, 4)
    size_wh = (int(right - left), int(bottom - top))
    return int(top), int(left), cv2.resize(oversampled, size_wh, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def light_surface(rng: Rng, height: Field, albedo: Colour, lamp: Lamp, metal: float, gloss: float) -> Colour:
    """Lambert's diffuse light, Blinn's highlight (1977), and for metal the reflection of a striped environment."""
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
    steep = 1 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    x, y, z = -slope_x * steep, -slope_y * steep, steep
    lx, ly, lz = (float(value) for value in lamp.towards)
    lambert = np.clip(x * lx + y * ly + z * lz, 0, None) / lz
    diffuse = lamp.ambient + (1 - lamp.ambient) * lambert
    half = np.array([lx, ly, lz + 1]) / np.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)
    shine = np.clip(x * np.float32(half[0]) + y * np.float32(half[1]) + z * np.float32(half[2]), 0, 1)
    for _ in range(3 + round(4 * gloss)):  # the 8th to the 128th power
        shine *= shine
    if metal:
        bands = rng.uniform(2, 7)
        reflection = 0.55 + 0.45 * np.sin(np.float32(bands) * (x * lx + y * ly) + np.float32(rng.uniform(-1, 1.6)))
        diffuse = (1 - metal) * diffuse + metal * 1.3 * reflection
    lit = albedo * diffuse[..., None] + np.float32(gloss * 0.8) * shine[..., None]
    return np.asarray(lit * lamp.tint, np.float32)


def make_piece(rng: Rng, shape: tuple[int, int, Field], lamp: Lamp, base: Colour) -> Piece:
    """A piece of random material in the colour ``base``: texture, bevel or dome, inlay, outline.

    ``shape`` is (top, left, coverage), as :func:`coverage_of` returns it.
    """
    top, left, coverage = shape
    size_hw = (coverage.shape[0], coverage.shape[1])
    inside = (coverage > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    deepest = max(float(depth.max()), 1.0)
    grain = float(np.exp(rng.uniform(np.log(1.5), np.log(max(max(size_hw) / 5, 2.0)))))
    field = make_texture(rng, str(rng.choice(list(TEXTURES))), size_hw, grain)
    strength = np.float32(rng.uniform(0, 1) ** 2)
    second = related_colour(rng, base)
    albedo = base + (second - base) * (strength * field)[..., None]
    height = _relief(rng, depth, deepest)
    if rng.random() < 0.35:
        height = height + np.float32(rng.uniform(0.3, 1.0)) * np.float32(min(grain, 4)) * field
    if rng.random() < 0.35 and deepest > 2:
        edge = np.float32(rng.uniform(0.25, 0.75) * deepest)
        inlay = np.clip(depth - edge + 0.5, 0, 1)
        albedo = albedo + (related_colour(rng, base) - albedo) * inlay[..., None]
        height = height + np.float32(rng.uniform(-2, 2)) * inlay
    if rng.random() < 0.2:
        rim = np.clip(np.float32(rng.uniform(1.0, 2.5)) - depth, 0, 1)
        albedo = albedo * (1 - np.float32(rng.uniform(0.3, 0.9)) * rim[..., None])
    metal = float(rng.uniform(0.4, 1.0)) if rng.random() < 0.35 else 0.0
    gloss = float(rng.uniform(0, 1) ** 2)
    rgb = light_surface(rng, cv2.GaussianBlur(height, (3, 3), 0.7), albedo, lamp, metal, gloss)
    return Piece(top, left, coverage, rgb, float(rng.uniform(0.05, 0.35) * min(deepest, 20)) + 0.5)


def _relief(rng: Rng, depth: Field, deepest: float) -> Field:
    """A height map from the distance to the outline: flat, bevelled, domed or roof-shaped."""
    kind = rng.integers(4)
    steep = np.float32(rng.uniform(0.3, 1.3))
    if kind == 0:
        return np.zeros_like(depth)
    if kind == 1:
        return steep * np.minimum(depth, np.float32(rng.uniform(1, 4)))
    if kind == 2:
        share = np.minimum(depth / np.float32(deepest), 1)
        return steep * np.float32(deepest) * np.sqrt(np.clip(1 - (1 - share) ** 2, 0, None))
    return steep * depth * np.float32(0.6)


def blend(image: Colour, piece: Piece, lamp: Lamp) -> None:
    """Draw ``piece`` on ``image`` [H, W, 3] in place: its shadow, then itself."""
    shadow_length = piece.lift / float(lamp.towards[2])
    shift_x, shift_y = -float(lamp.towards[0]) * shadow_length, -float(lamp.towards[1]) * shadow_length
    blur = 0.5 + lamp.softness * shadow_length
    margin = int(np.ceil(max(abs(shift_x), abs(shift_y)) + 2.5 * blur)) + 1
    outline = cv2.copyMakeBorder(piece.coverage, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    move = np.array([[1, 0, shift_x], [0, 1, shift_y]])
    moved = cv2.GaussianBlur(cv2.warpAffine(outline, move, outline.shape[::-1]), (0, 0), blur)
    contact = cv2.GaussianBlur(outline, (0, 0), 1.2)
    shadow = (1 - (1 - lamp.ambient) * moved) * (1 - 0.35 * contact)
    image_window, piece_window = overlap(image, piece.top - margin, piece.left - margin, outline.shape)
    image[image_window] *= shadow[piece_window][..., None]
    image_window, piece_window = overlap(image, piece.top, piece.left, piece.coverage.shape)
    cover = piece.coverage[piece_window][..., None]
    image[image_window] += (piece.rgb[piece_window] - image[image_window]) * cover


def overlap(
    image: npt.NDArray[np.generic], top: int, left: int, size_hw: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The window of the image that an array at (top, left) covers, and the same window in the array."""
    image_window, array_window = [], []
    for start, length, limit in zip((top, left), size_hw, image.shape, strict=False):
        first = min(max(start, 0), limit)
        last = max(min(start + length, limit), first)
        image_window.append(slice(first, last))
        array_window.append(slice(first - start, last - start))
    return (image_window[0], image_window[1]), (array_window[0], array_window[1])
