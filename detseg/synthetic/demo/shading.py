"""Shade the surfaces of the demo set: height maps to lit metal, plastic or paper; light and noise.

Colours are linear float32 RGB; x points right, y down, z towards the camera. Lengths are canvas pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Inside = npt.NDArray[np.bool_]
Rng = np.random.Generator


@dataclass(frozen=True)
class Light:
    """One lamp over the bench.

    Attributes:
        direction: unit vector from the bench to the lamp.
        colour: linear RGB of the lamp, near 1.
        ambient: fraction of ambient light, in [0, 1].
        softness: blur of a shadow's edge, as a fraction of the object's height.
    """

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]
    ambient: float
    softness: float

    @classmethod
    def draw(cls, rng: Rng) -> Light:
        """A random lamp, 30 to 65 degrees above the bench, from warm bulb to cold daylight."""
        azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(32, 66))
        warmth = rng.uniform(-0.12, 0.16)
        return cls(
            (float(np.cos(azimuth) * np.cos(height)), float(np.sin(azimuth) * np.cos(height)), float(np.sin(height))),
            (1 + warmth, 1.0, 1 - warmth),
            float(rng.uniform(0.35, 0.6)),
            float(rng.uniform(0.12, 0.5)),
        )


@dataclass(frozen=True)
class Patch:
    """One object on the bench, already lit.

    Attributes:
        label: 1..3 for a part, 0 for clutter.
        top, left: position of its arrays on the canvas; may be negative.
        alpha: bool [h, w], the pixels that it covers.
        rgb: float32 [h, w, 3] linear.
        lift: its height in canvas pixels, which determines the length of its shadow.
    """

    label: int
    top: int
    left: int
    alpha: npt.NDArray[np.bool_]
    rgb: Float
    lift: float


@dataclass(frozen=True)
class Finish:
    """Material of a surface: linear RGB, fraction of mirror reflection, width of highlights in (0, 1], rust."""

    colour: tuple[float, float, float]
    metal: float
    roughness: float
    rust: float = 0.0


def linear(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """An sRGB colour in 0..255 as linear values in [0, 1] (simple gamma 2.2)."""
    return ((red / 255) ** 2.2, (green / 255) ** 2.2, (blue / 255) ** 2.2)


def mottle(rng: Rng, size_hw: tuple[int, int], cell_hw: tuple[float, float], octaves: int = 1) -> Float:
    """float32 [H, W] smooth random field in about [0, 1] with blobs of ``cell_hw`` pixels; finer octaves add detail."""
    height, width = size_hw
    total = np.zeros(size_hw, np.float32)
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        cells = [max(cell / 2**octave, 1.0) for cell in cell_hw]
        grid = rng.random((int(height / cells[0]) + 3, int(width / cells[1]) + 3), dtype=np.float32)
        to_grid = np.array([[1 / cells[1], 0, 0.7], [0, 1 / cells[0], 0.7]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        total += weight * cv2.warpAffine(grid, to_grid, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        weights += weight
        weight *= 0.55
    return total / np.float32(weights)


def step(edge0: float, edge1: float, value: npt.NDArray[np.floating]) -> Float:
    """Smooth step from 0 at ``edge0`` to 1 at ``edge1``, float32."""
    t = np.clip((value - edge0) / (edge1 - edge0), 0, 1).astype(np.float32)
    return t * t * (3 - 2 * t)


def normals(height: npt.NDArray[np.floating], tilt: tuple[float, float] = (0.0, 0.0)) -> Float:
    """float32 [H, W, 3] unit normals of a height map [H, W] in pixels, inclined by ``tilt`` (slopes in x and y)."""
    height = height.astype(np.float32)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE) - tilt[0]
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE) - tilt[1]
    result = np.stack([-slope_x, -slope_y, np.ones_like(slope_x)], axis=-1)
    return result / np.sqrt((result * result).sum(-1, keepdims=True))


def shade(normal: Float, albedo: Float, finish: Finish, light: Light, inside: Inside | None = None) -> Float:
    """Light a surface: float32 [H, W, 3] linear; with ``inside`` [H, W], zeros where it is false.

    Metal reflects a simulated workshop (grey ceiling, dark horizon, a soft window at the lamp, a weak one opposite);
    the rest is Lambert plus a highlight. Mirror direction and highlight follow Blinn, 1977.
    """
    if inside is not None:
        result = np.zeros_like(normal)
        result[inside] = shade(normal[inside], albedo[inside], finish, light)
        return result
    to_lamp = np.array(light.direction, np.float32)
    opposite = np.array([-to_lamp[0], -to_lamp[1], to_lamp[2]], np.float32)
    mirror = 2 * normal[..., 2:] * normal - np.array([0, 0, 1], np.float32)
    lambert = np.clip(normal @ to_lamp, 0, None)
    sharp = 1.6 / max(finish.roughness, 0.05) ** 1.5
    window = np.exp((mirror @ to_lamp - 1) * sharp)
    second = np.exp((mirror @ opposite - 1) * sharp * 0.6)
    workshop = 0.10 + 0.62 * step(-0.35, 0.95, mirror[..., 2]) + 0.25 * lambert
    reflected = (workshop + (2.6 - 1.6 * finish.roughness) * window + 0.45 * second)[..., None] * albedo
    diffuse = (light.ambient * (0.55 + 0.45 * normal[..., 2]) + (1 - light.ambient) * 1.25 * lambert)[..., None]
    gloss = (0.5 * (1 - finish.roughness) * window)[..., None]
    mixed = finish.metal * reflected + (1 - finish.metal) * (diffuse * albedo + gloss)
    return (mixed * np.array(light.colour, np.float32)).astype(np.float32)


def local_frame(
    half_uv: tuple[float, float], angle: float, px_per_mm: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coordinates u, v (mm, float64 [h, w]) of a patch that contains a box of half sides ``half_uv`` rotated by
    ``angle``. float64, so that the outlines computed from it do not depend on the machine.
    """
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    half_w = int(np.ceil((abs(cos) * half_uv[0] + abs(sin) * half_uv[1]) * px_per_mm)) + 2
    half_h = int(np.ceil((abs(sin) * half_uv[0] + abs(cos) * half_uv[1]) * px_per_mm)) + 2
    x = np.arange(-half_w, half_w + 1)[None, :] / px_per_mm
    y = np.arange(-half_h, half_h + 1)[:, None] / px_per_mm
    return x * cos + y * sin, y * cos - x * sin


def paint(canvas: Float, patch: Patch, light: Light) -> None:
    """Draw ``patch`` on the linear ``canvas`` [H, W, 3] in place: first its shadow, then itself."""
    shadow_length = patch.lift / light.direction[2]
    shift = (-light.direction[0] * shadow_length, -light.direction[1] * shadow_length)
    blur = 0.6 + patch.lift * light.softness
    margin = int(np.ceil(np.hypot(*shift) + 3 * blur + 2))
    outline = np.pad(patch.alpha.astype(np.float32), margin)
    moved = cv2.warpAffine(outline, np.array([[1, 0, shift[0] * 0.7], [0, 1, shift[1] * 0.7]]), outline.shape[::-1])
    moved = _blur(moved, blur)
    contact = _blur(outline, 0.8 + 0.22 * patch.lift)
    shadow = 1 - (1 - light.ambient) * 1.05 * moved
    shadow = np.clip(shadow, 0.12, 1) * (1 - 0.45 * contact)
    rows, columns, inside = _overlap(canvas, patch.top - margin, patch.left - margin, outline.shape)
    canvas[rows, columns] *= shadow[inside][..., None]
    rows, columns, inside = _overlap(canvas, patch.top, patch.left, patch.alpha.shape)
    canvas[rows, columns][patch.alpha[inside]] = patch.rgb[inside][patch.alpha[inside]]


def stamp(ids: npt.NDArray[np.int16], patch: Patch, number: int) -> None:
    """Write ``number`` into the id buffer [H, W] wherever ``patch`` covers it, in place."""
    rows, columns, inside = _overlap(ids, patch.top, patch.left, patch.alpha.shape)
    ids[rows, columns][patch.alpha[inside]] = number


def _blur(field: Float, sigma: float) -> Float:
    """Gaussian blur of [H, W]; a wide blur is computed at reduced size, which is fast."""
    reduced = max(int(sigma / 2.5), 1)
    size_wh = field.shape[::-1]
    small = cv2.resize(field, [-(-side // reduced) for side in size_wh], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / reduced), size_wh), np.float32)


def _overlap(
    canvas: npt.NDArray[np.generic], top: int, left: int, size_hw: tuple[int, ...]
) -> tuple[slice, slice, tuple[slice, slice]]:
    """Rows and columns of the canvas under an array at (top, left), and the same window in the array."""
    spans = []
    for start, length, limit in zip((top, left), size_hw, canvas.shape, strict=False):
        first, last = max(start, 0), max(min(start + length, limit), 0)
        last = max(first, last)
        spans.append((slice(first, last), slice(first - start, last - start)))
    return spans[0][0], spans[1][0], (spans[0][1], spans[1][1])
