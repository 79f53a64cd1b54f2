"""Generate random outlines by family: closed polygons around the origin.

A contour is a list of polygons, float64 [V, 2] in x and y; their even-odd union is the shape, so an inner polygon is a
hole. The size is arbitrary: :func:`make_contour` scales it to the unit disc.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Polygon = npt.NDArray[np.float64]
Contour = list[Polygon]


def make_contour(rng: Rng, family: str) -> Contour:
    """A random contour of ``family``, randomly rotated; its farthest point is at distance 1 from the origin."""
    polygons = _FAMILIES[family](rng)
    outer = np.concatenate(polygons)
    low, high = outer.min(0), outer.max(0)
    centre = (low + high) / 2
    radius = float(np.sqrt(((outer - centre) ** 2).sum(1).max()))
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, sin], [-sin, cos]]) / radius
    return [(polygon - centre) @ rotation for polygon in polygons]


def _polar(radius: npt.NDArray[np.float64]) -> Polygon:
    """The closed curve with these radii at equal steps of angle."""
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _disc(radius: float = 1.0, points: int = 40) -> Polygon:
    return _polar(np.full(points, radius))


def _regular(sides: int) -> Polygon:
    return _polar(np.ones(sides))


def _rectangle(width: float, height: float) -> Polygon:
    return np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2


def _rounded(polygon: Polygon, share: float) -> Polygon:
    """``polygon`` with each corner replaced by a quadratic curve that starts at ``share`` (below 0.5) of its sides."""
    t = np.linspace(0, 1, 6)[:, None]
    before, after = np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0)
    corners = []
    for last, corner, following in zip(before, polygon, after, strict=True):
        start, end = corner + share * (last - corner), corner + share * (following - corner)
        corners.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end)
    return np.concatenate(corners)


def _maybe_rounded(rng: Rng, polygon: Polygon, most: float = 0.35) -> Polygon:
    return _rounded(polygon, float(rng.uniform(0.05, most))) if rng.random() < 0.5 else polygon


def _stretched(polygon: Polygon, x: float, y: float = 1.0) -> Polygon:
    return polygon * np.array([x, y])


def _outline_of_band(line: Polygon, width: npt.NDArray[np.float64] | float) -> Polygon:
    """The closed outline of a band of ``width`` along an open line [V, 2]."""
    direction = np.gradient(line, axis=0)
    direction /= np.sqrt((direction**2).sum(1, keepdims=True))
    side = np.stack([-direction[:, 1], direction[:, 0]], axis=1) * (np.asarray(width).reshape(-1, 1) / 2)
    return np.concatenate([line + side, (line - side)[::-1]])


def _triangle(rng: Rng) -> Contour:
    corners = _regular(3) * rng.uniform(0.7, 1.3, (3, 1))
    return [_maybe_rounded(rng, corners)]


def _box(rng: Rng) -> Contour:
    return [_maybe_rounded(rng, _rectangle(float(rng.uniform(0.4, 1.0)), 1.0), 0.2)]


def _kite(rng: Rng) -> Contour:
    tail, wing = rng.uniform(0.9, 2.2), rng.uniform(0.4, 0.9)
    return [_maybe_rounded(rng, np.array([[0, -0.7], [wing, 0], [0, tail], [-wing, 0]]), 0.2)]


def _pentagon(rng: Rng) -> Contour:
    return [_maybe_rounded(rng, _stretched(_regular(5), float(rng.uniform(0.75, 1.0))))]


def _star(rng: Rng) -> Contour:
    points = int(rng.integers(4, 9))
    radius = np.ones(2 * points)
    radius[1::2] = rng.uniform(0.3, 0.6)
    return [_maybe_rounded(rng, _polar(radius), 0.25)]


def _ellipse(rng: Rng) -> Contour:
    return [_stretched(_disc(), float(rng.uniform(0.35, 0.85)))]


def _crescent(rng: Rng) -> Contour:
    half = rng.uniform(1.4, 2.4)
    angle = np.linspace(-half, half, 30)
    line = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return [_outline_of_band(line, rng.uniform(0.3, 0.8) * np.cos(np.linspace(-1.45, 1.45, 30)) + 0.02)]


def _cross(rng: Rng) -> Contour:
    w, x, y = rng.uniform(0.16, 0.4), 1.0, rng.uniform(0.7, 1.0)
    quarter = [(w, -y), (w, -w), (x, -w), (x, w), (w, w), (w, y)]
    return [_maybe_rounded(rng, np.array(quarter + [(-a, -b) for a, b in quarter]), 0.2)]


def _arrow(rng: Rng) -> Contour:
    shaft, head, barb = rng.uniform(0.12, 0.3), rng.uniform(0.0, 0.5), rng.uniform(0.5, 0.9)
    right = [(1, 0), (head, barb), (head, shaft), (-1, shaft)]
    return [_maybe_rounded(rng, np.array(right + [(x, -y) for x, y in right[:0:-1]]), 0.12)]


def _heart(rng: Rng) -> Contour:
    t = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [_stretched(np.stack([16 * np.sin(t) ** 3, -y], axis=1), float(rng.uniform(0.75, 1.15)))]


def _blob(rng: Rng) -> Contour:
    """Radial harmonics 2 to 6 with decreasing, random amplitudes."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    order = np.arange(2, 7)[:, None]
    amplitude = rng.normal(0, 0.34, (5, 1)) / order**0.9
    return [_polar(np.maximum(1 + (amplitude * np.cos(order * angle + rng.uniform(0, 7, (5, 1)))).sum(0), 0.2))]


def _petals(rng: Rng) -> Contour:
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    return [_polar(1 + rng.uniform(0.18, 0.45) * np.cos(int(rng.integers(3, 9)) * angle))]


def _frame(rng: Rng) -> Contour:
    width, rim = rng.uniform(0.5, 1.0), rng.uniform(0.12, 0.3)
    inner = _rectangle(width * (1 - rim), 1 - rim * width)
    return [_maybe_rounded(rng, _rectangle(width, 1.0), 0.2), _maybe_rounded(rng, inner, 0.2)]


def _elbow(rng: Rng) -> Contour:
    """An L, or a U if there is a third arm."""
    arm, width = rng.uniform(0.5, 1.0), rng.uniform(0.12, 0.34)
    foot = float(rng.choice([0.0, arm]))
    points = [(0, 0), (1, 0), (1, width), (width, width), (width, arm), (0, arm)]
    if foot:
        points = [(0, 0), (1, 0), (1, foot), (1 - width, foot), (1 - width, width), *points[3:]]
    return [_maybe_rounded(rng, np.array(points), 0.12)]


def _capsule(rng: Rng) -> Contour:
    length, thick = 1.0, rng.uniform(0.12, 0.4)
    half = np.linspace(-np.pi / 2, np.pi / 2, 16)
    right = np.stack([length + thick * np.cos(half), thick * np.sin(half)], axis=1)
    return [np.concatenate([right, -right])]


def _spindle(rng: Rng) -> Contour:
    """A long shape with varying thickness, pointed or blunt."""
    x = np.linspace(-1, 1, 40)
    bulge = (1 - np.abs(x) ** rng.uniform(1.5, 4)) * (1 + rng.uniform(0, 0.4) * np.sin(rng.uniform(2, 7) * x))
    return [_outline_of_band(np.stack([x, 0 * x], axis=1), rng.uniform(0.3, 0.7) * bulge + 0.03)]


def _dumbbell(rng: Rng) -> Contour:
    x = np.linspace(-1, 1, 80)
    left, right = rng.uniform(0.22, 0.4, 2)
    knobs = [r * np.sqrt(np.clip(1 - ((x - c) / r) ** 2, 0, None)) for r, c in ((left, left - 1), (right, 1 - right))]
    thick = np.maximum(np.maximum(*knobs), rng.uniform(0.06, 0.16) * (np.abs(x) < 0.8))
    return [_outline_of_band(np.stack([x, 0 * x], axis=1), 2 * np.maximum(thick, 0.01))]


def _wedge(rng: Rng) -> Contour:
    angle = np.linspace(0, rng.uniform(0.6, 4.9), 36)
    rim = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    core = rng.uniform(0.0, 0.3)
    return [np.concatenate([rim, core * rim[::-1]])]


def _comb(rng: Rng) -> Contour:
    teeth, depth = int(rng.integers(3, 8)), rng.uniform(0.25, 0.6)
    height = rng.uniform(0.35, 0.8)
    edge = []
    for tooth in range(teeth):
        left = 2 * tooth / (2 * teeth - 1)
        right = (2 * tooth + 1) / (2 * teeth - 1)
        edge += [(left, depth * height), (left, 0), (right, 0), (right, depth * height)]
    return [np.array([*edge, (1, height), (0, height)])]


def _porthole(rng: Rng) -> Contour:
    """A plate with three, four or five corners and one round or oval hole, not always in the middle."""
    plate = _rounded(_regular(int(rng.integers(3, 6))), float(rng.uniform(0.1, 0.45)))
    window = _stretched(_disc(float(rng.uniform(0.2, 0.42))), float(rng.uniform(0.7, 1.0)))
    return [_stretched(plate, float(rng.uniform(0.75, 1.0))), window + rng.uniform(-0.12, 0.12, 2)]


def _snowflake(rng: Rng) -> Contour:
    """Two or three iterations of Koch's rule (von Koch, 1904) on a triangle or square, with spikes of random height."""
    points = _regular(int(rng.integers(3, 5)))
    height = rng.uniform(0.18, 0.36) * rng.choice([1, -1])
    for _ in range(int(rng.integers(2, 4))):
        side = np.roll(points, -1, axis=0) - points
        normal = np.stack([side[:, 1], -side[:, 0]], axis=1)
        points = np.stack(
            [points, points + side / 3, points + side / 2 + height * normal, points + side * 2 / 3], axis=1
        ).reshape(-1, 2)
    return [points]


def _wave(rng: Rng) -> Contour:
    x = np.linspace(-1, 1, 60)
    line = np.stack([x, rng.uniform(0.15, 0.4) * np.sin(rng.uniform(2.5, 8) * x + rng.uniform(0, 7))], axis=1)
    return [_outline_of_band(line, float(rng.uniform(0.12, 0.3)))]


def _tee(rng: Rng) -> Contour:
    bar, stem, length = rng.uniform(0.14, 0.35), rng.uniform(0.1, 0.25), rng.uniform(0.8, 1.8)
    right = [(0.7, 0), (0.7, bar), (stem, bar), (stem, length)]
    return [_maybe_rounded(rng, np.array(right + [(-x, y) for x, y in right[::-1]]), 0.12)]


def _spiral(rng: Rng) -> Contour:
    angle = np.linspace(0, rng.uniform(6.5, 11), 90)
    radius = 0.15 + angle / angle[-1]
    line = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return [_outline_of_band(line, float(rng.uniform(0.1, 0.2)) * np.linspace(0.6, 1.2, 90))]


def _baluster(rng: Rng) -> Contour:
    """A long lathe-turned shape: three to six sections along its axis, each with its own thickness."""
    sections = int(rng.integers(3, 7))
    ends = np.cumsum(rng.uniform(0.3, 1.5, sections))
    thick = np.repeat(rng.uniform(0.12, 0.4, sections), 2)
    x = np.repeat(np.concatenate([[0.0], 2 * ends / ends[-1]]), 2)[1:-1]
    half = np.stack([x, thick], axis=1)
    return [_maybe_rounded(rng, np.concatenate([half, (half * (1, -1))[::-1]]), 0.2)]


def _paddle(rng: Rng) -> Contour:
    """A blade at the end of a handle."""
    wide, long, grip = rng.uniform(0.25, 0.45), rng.uniform(0.3, 0.7), rng.uniform(0.05, 0.12)
    angle = np.linspace(-np.pi + 0.5, np.pi - 0.5, 30)
    blade = np.stack([long * np.cos(angle), wide * np.sin(angle)], axis=1)
    return [np.concatenate([blade, [(-2 + long, grip), (-2 + long, -grip)]])]


def torn_sheet(rng: Rng) -> Contour:
    """Clutter, not a family: a sheet with straight and ragged edges."""
    corners = _regular(int(rng.integers(3, 6))) * rng.uniform(0.6, 1.2, (1, 2))
    following = np.roll(corners, -1, axis=0)
    t = np.linspace(0, 1, 14, endpoint=False)[:, None]
    sides = []
    for side, (start, end) in enumerate(zip(corners, following, strict=True)):
        ragged = (
            0.05 if side == 0 else rng.choice([0.0, 0.05])
        )  # with straight sides only, it would be a polygon of a family
        sides.append(start + t * (end - start) + rng.normal(0, ragged, (14, 2)))
    return [np.concatenate(sides)]


def rod(rng: Rng) -> list[Contour]:
    """Clutter, not a family: two to four collinear pieces of total length 2, centred at the origin."""
    pieces = int(rng.integers(2, 5))
    ends = np.concatenate([[0.0], np.cumsum(rng.uniform(0.2, 1.0, pieces))])
    ends = 2 * ends / ends[-1] - 1
    thick = rng.uniform(0.03, 0.16, pieces)
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    boxes = [
        np.array([[start, -wide], [end, -wide], [end, wide], [start, wide]])
        for start, end, wide in zip(ends, ends[1:], thick, strict=False)
    ]
    return [[_maybe_rounded(rng, box, 0.3) @ rotation] for box in boxes]


_FAMILIES: dict[str, Callable[[Rng], Contour]] = {
    "triangle": _triangle,
    "box": _box,
    "kite": _kite,
    "pentagon": _pentagon,
    "star": _star,
    "ellipse": _ellipse,
    "crescent": _crescent,
    "cross": _cross,
    "arrow": _arrow,
    "heart": _heart,
    "blob": _blob,
    "petals": _petals,
    "frame": _frame,
    "elbow": _elbow,
    "capsule": _capsule,
    "spindle": _spindle,
    "dumbbell": _dumbbell,
    "wedge": _wedge,
    "comb": _comb,
    "porthole": _porthole,
    "snowflake": _snowflake,
    "wave": _wave,
    "tee": _tee,
    "spiral": _spiral,
    "baluster": _baluster,
    "paddle": _paddle,
}

SHAPE_FAMILIES = tuple(_FAMILIES)
"""The classes of a scene, in the order of their labels 1, 2, ...; none is a family of the demo set."""
