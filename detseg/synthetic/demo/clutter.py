"""Render unannotated clutter on the demo set's bench: cables, ties, tools, paper, plugs, shavings."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from detseg.synthetic.demo.shading import Finish, Light, Patch, Rng, linear, local_frame, mottle, normals, shade, step

PLASTICS = (
    linear(186, 40, 36), linear(30, 32, 36), linear(40, 80, 160), linear(222, 186, 46), linear(228, 226, 218),
    linear(52, 122, 70), linear(214, 112, 36), linear(128, 128, 132),
)  # fmt: skip
STEEL = Finish(linear(176, 178, 182), 0.9, 0.4)
PAPER = Finish((1, 1, 1), 0.0, 0.95)
BLACK_STEEL = Finish(linear(74, 74, 80), 0.6, 0.4)


def make_clutter(rng: Rng, name: str, px_per_mm: float, light: Light) -> Patch:
    """One piece of clutter at the origin; label 0."""
    return CLUTTER[name](rng, px_per_mm, light)


def _plastic(rng: Rng, roughness: float = 0.4) -> Finish:
    return Finish(PLASTICS[int(rng.integers(len(PLASTICS)))], 0.0, roughness)


def _strand(
    rng: Rng, points_mm: npt.NDArray[np.float64], width_mm: float, px: float, light: Light, finish: Finish, flat: float
) -> Patch:
    """A round (``flat`` 0) to flat (``flat`` near 1) strand along a polyline [V, 2] in mm."""
    points = points_mm * px
    low = np.floor(points.min(0) - width_mm * px - 2)
    size_wh = (np.ceil(points.max(0) + width_mm * px + 2) - low).astype(int)
    line = np.zeros((size_wh[1], size_wh[0]), np.uint8)
    thick = max(round(width_mm * px), 3)
    cv2.polylines(line, [np.round((points - low) * 16).astype(np.int32)], False, 255, thick, cv2.LINE_8, 4)
    depth = cv2.distanceTransform(line, cv2.DIST_L2, 5) / (thick / 2)
    top = np.sqrt(np.clip(1 - (1 - np.minimum(depth / max(1 - flat, 0.08), 1)) ** 2, 0, None)) * thick / 2 * (1 - flat)
    albedo = (
        np.array(finish.colour, np.float32) * (0.85 + 0.3 * mottle(rng, line.shape, (3 * px, 3 * px), 3))[..., None]
    )
    rgb = shade(normals(cv2.GaussianBlur(top, (0, 0), 0.8)), albedo, finish, light, line > 0)
    return Patch(0, 0, 0, line > 0, rgb, thick * (1 - flat) + 0.4 * px)


def _wander(rng: Rng, length: float, bend: float) -> npt.NDArray[np.float64]:
    """A smooth random walk, float64 [61, 2] in mm; each quarter changes the heading by about ``bend`` radians."""
    turns = np.interp(np.linspace(0, 4, 61), np.arange(5), np.cumsum(rng.normal(0, bend, 5)))
    heading = rng.uniform(0, 2 * np.pi) + cv2.GaussianBlur(turns[:, None], (1, 15), 0, sigmaY=4)[:, 0]
    return np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * length / 60, axis=0)


def _cable(rng: Rng, px: float, light: Light) -> Patch:
    length = rng.uniform(60, 220)
    return _strand(rng, _wander(rng, length, 0.9), rng.uniform(1.2, 3.2), px, light, _plastic(rng, 0.35), 0.0)


def _cable_tie(rng: Rng, px: float, light: Light) -> Patch:
    width = rng.uniform(2.2, 3.6)
    finish = Finish(PLASTICS[(1, 4, 4, 7)[int(rng.integers(4))]], 0.0, 0.35)
    path = _wander(rng, rng.uniform(30, 90), 0.55)
    strip = _strand(rng, path, width, px, light, finish, 0.75)
    heading = path[1] - path[0]
    u, v = local_frame((1.3 * width, 1.1 * width), float(np.arctan2(heading[1], heading[0])), px)
    outside = np.maximum(np.abs(u) - 0.95 * width, np.abs(v) - 0.85 * width)
    slot = np.maximum(np.abs(u) - 0.4 * width, np.abs(v) - 0.5 * width)
    top = np.minimum(-outside * 1.2, 1.0) - 1.2 * step(0.1, -0.2, slot)
    head = shade(normals(top * px), np.full((*u.shape, 3), finish.colour, np.float32), finish, light, outside < 0)
    return _overlaid(strip, outside < 0, head, path[0] * px - (path.min(0) * px - width * px - 2))


def _overlaid(
    base: Patch, alpha: npt.NDArray[np.bool_], rgb: npt.NDArray[np.float32], xy: npt.NDArray[np.float64]
) -> Patch:
    """``base`` with another piece drawn over it, centred at ``xy`` in base's pixels."""
    pad = max(alpha.shape)
    whole, colour = np.pad(base.alpha, pad), np.pad(base.rgb, ((pad, pad), (pad, pad), (0, 0)))
    top, left = (round(float(xy[1 - k])) + pad - alpha.shape[k] // 2 for k in range(2))
    window = (slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1]))
    whole[window] |= alpha
    colour[window][alpha] = rgb[alpha]
    return Patch(0, 0, 0, whole, colour, base.lift)


def _pencil(rng: Rng, px: float, light: Light) -> Patch:
    length, radius = rng.uniform(45, 130), 3.6
    u, v = local_frame((length / 2, radius), rng.uniform(0, 2 * np.pi), px)
    from_tip = length / 2 - u
    half = np.minimum(radius, from_tip * 0.24)
    inside = (np.abs(v) < half) & (np.abs(u) < length / 2)
    facets = np.minimum(radius * 0.87, (radius - np.abs(v)) * 1.73)
    cone = from_tip < 13.5 + 0.9 * np.abs(np.sin(3 * np.pi * (v / radius + 0.5)))
    top = np.where(cone, np.sqrt(np.maximum(half**2 - v**2, 0)), facets)
    wood = np.array(linear(206, 168, 118), np.float32) * (0.85 + 0.3 * mottle(rng, u.shape, (px, 5 * px)))[..., None]
    lacquer = np.array(PLASTICS[int(rng.integers(len(PLASTICS)))], np.float32)
    albedo = np.where(cone[..., None], wood, lacquer)
    albedo = np.where((from_tip < 4)[..., None], np.float32(0.03), albedo)
    end = u < -length / 2 + 7
    albedo = np.where(end[..., None], np.array(linear(196, 176, 140), np.float32), albedo).astype(np.float32)
    rgb = shade(normals(top * px), albedo, Finish((0, 0, 0), 0.0, 0.3), light, inside)
    return Patch(0, 0, 0, inside, rgb, 1.3 * radius * px)


def _hex_key(rng: Rng, px: float, light: Light) -> Patch:
    width, long, short = rng.uniform(1.8, 4.5), rng.uniform(32, 75), rng.uniform(12, 24)
    turn = np.linspace(0, np.pi / 2, 9)
    bend = 1.6 * width
    corner = np.stack([bend * np.sin(turn), bend * (1 - np.cos(turn))], axis=1)
    points = np.concatenate([[[-long, 0]], corner, [[bend, bend + short]]])
    angle = rng.uniform(0, 2 * np.pi)
    rotated = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    finish = BLACK_STEEL if rng.random() < 0.6 else STEEL
    return _strand(rng, rotated, width, px, light, finish, 0.35)


def _screwdriver(rng: Rng, px: float, light: Light) -> Patch:
    shaft, handle = rng.uniform(30, 60), rng.uniform(45, 60)
    radius, grip = rng.uniform(1.6, 2.6), rng.uniform(7.5, 10)
    u, v = local_frame(((shaft + handle) / 2, grip * 1.05), rng.uniform(0, 2 * np.pi), px)
    u = u + (shaft + handle) / 2  # tip at 0, handle from shaft to shaft + handle
    blade = np.where(u < 7, radius * (0.75 + 0.5 * step(7.0, 3.0, u)), radius)
    on_shaft, t = (u > 0) & (u < shaft), (u - shaft) / handle
    belly = grip * (0.72 + 0.28 * np.sin(np.pi * np.clip(t * 1.5 - 0.35, 0, 1)))
    belly = np.where(t < 0.12, belly * (0.6 + 3.3 * np.clip(t, 0, 0.12)), belly)
    belly = belly * np.sqrt(np.clip(1 - np.clip((t - 0.88) / 0.12, 0, 1) ** 2, 0, 1))
    on_handle = (t >= 0) & (t <= 1)
    radius_at = np.where(on_shaft, blade, np.where(on_handle, belly, -1.0))
    flute = 0.05 * grip * np.cos(16 * np.arcsin(np.clip(v / grip, -1, 1))) * on_handle * step(0.15, 0.25, t)
    top = np.sqrt(np.maximum(radius_at**2 - v**2, 0)) + flute
    top = np.where(on_shaft & (u < 7), np.minimum(top, 0.35 + 0.25 * u), top)
    plastic = _plastic(rng, 0.3)
    colour = np.full((*u.shape, 3), plastic.colour, np.float32)
    band = (t > 0.3) & (t < 0.42)
    colour[band] = PLASTICS[1]
    normal = normals(cv2.GaussianBlur(top * px, (0, 0), 0.8))
    inside = np.abs(v) < radius_at
    metal = shade(normal, np.full_like(colour, STEEL.colour), STEEL, light, inside & on_shaft)
    rgb = metal + shade(normal, colour, plastic, light, inside & ~on_shaft)
    return Patch(0, 0, 0, inside, rgb, grip * px)


def _paper_scrap(rng: Rng, px: float, light: Light) -> Patch:
    half = (rng.uniform(8, 24), rng.uniform(6, 15))
    u, v = local_frame((half[0] * 1.1, half[1] * 1.1), rng.uniform(0, 2 * np.pi), px)
    tear = (mottle(rng, u.shape, (2.5 * px, 2.5 * px), 4) - 0.5) * (5.0 if rng.random() < 0.6 else 0.3)
    inside = np.maximum(np.abs(u) - half[0], np.abs(v) - half[1]) + tear < 0
    tint = ((238, 236, 228), (232, 222, 150), (226, 206, 176), (206, 222, 232))[int(rng.integers(4))]
    row = v / rng.uniform(2.2, 4.0)
    words = rng.random(4096)[(np.floor(row).astype(int) * 61 + np.floor(u / 1.1).astype(int)) % 4096] < 0.68
    ink = words & (np.abs(row % 1 - 0.5) < 0.2) & (np.abs(u) < 0.8 * half[0]) & (np.abs(v) < 0.8 * half[1])
    crease = mottle(rng, u.shape, (9 * px, 14 * px), 3)
    albedo = np.array(linear(*tint), np.float32) * np.where(ink & (rng.random() < 0.7), 0.22, 0.95)[..., None]
    rgb = shade(normals(crease * 3.5 * px), albedo.astype(np.float32), PAPER, light, inside)
    return Patch(0, 0, 0, inside, rgb, 0.5 * px)


def _masking_tape(rng: Rng, px: float, light: Light) -> Patch:
    half = (rng.uniform(12, 45), rng.uniform(5, 9.5))
    u, v = local_frame((half[0] + 1, half[1]), rng.uniform(0, 2 * np.pi), px)
    teeth = 0.6 * np.abs(2 * ((v / 1.4) % 1) - 1)
    inside = (np.abs(v) < half[1]) & (np.abs(u) + teeth < half[0])
    crepe = mottle(rng, u.shape, (1.2 * px, 1.2 * px), 3)
    tint = ((214, 192, 140), (52, 92, 150), (40, 40, 44), (190, 190, 186))[int(rng.integers(4))]
    albedo = np.array(linear(*tint), np.float32) * (0.8 + 0.4 * crepe)[..., None]
    return Patch(0, 0, 0, inside, shade(normals(0.2 * crepe * px), albedo, PAPER, light, inside), 0.15 * px)


def _ruler(rng: Rng, px: float, light: Light) -> Patch:
    length, half = rng.uniform(80, 160), rng.uniform(7, 13)
    u, v = local_frame((length / 2, half), rng.uniform(0, 2 * np.pi), px)
    inside = (np.abs(u) < length / 2) & (np.abs(v) < half)
    millimetre = np.round(u).astype(int)
    tick = np.where(millimetre % 10 == 0, 6.5, np.where(millimetre % 5 == 0, 4.5, 3.0))
    marks = (np.abs(u - millimetre) < max(0.16, 0.8 / px)) & (half + v < tick)
    steel = rng.random() < 0.5
    finish = STEEL if steel else Finish((1, 1, 1), 0.0, 0.45)
    tint = STEEL.colour if steel else (linear(222, 188, 132), linear(236, 208, 60))[int(rng.integers(2))]
    grain = mottle(rng, u.shape, (2 * px, 2 * px), 3)
    albedo = np.array(tint, np.float32) * (np.where(marks, 0.12, 0.85) + 0.12 * (grain - 0.3) * ~marks)[..., None]
    tilt = (float(rng.normal(0, 0.05)), float(rng.normal(0, 0.05)))
    rgb = shade(normals(0.2 * grain, tilt), albedo.astype(np.float32), finish, light, inside)
    return Patch(0, 0, 0, inside, rgb, 1.0 * px)


def _wall_plug(rng: Rng, px: float, light: Light) -> Patch:
    length, radius = rng.uniform(22, 42), rng.uniform(2.4, 4.4)
    u, v = local_frame((length / 2, radius * 1.25), rng.uniform(0, 2 * np.pi), px)
    t = u / length + 0.5
    radius_at = radius * (1.0 - 0.3 * step(0.75, 1.0, t)) * (1 - 0.14 * ((t * 7) % 1) * (t > 0.3))
    radius_at = np.where(t < 0.07, radius * 1.22, radius_at)
    inside = (np.abs(v) < radius_at) & (t > 0) & (t < 1)
    slit = (np.abs(v) < 0.16 * radius) & (t > 0.3)
    top = np.sqrt(np.maximum(radius_at**2 - v**2, 0)) - 0.5 * slit
    finish = Finish(PLASTICS[(0, 2, 3, 5, 6, 7, 4)[int(rng.integers(7))]], 0.0, 0.45)
    albedo = np.full((*u.shape, 3), finish.colour, np.float32) * np.where(slit, 0.35, 1.0)[..., None]
    rgb = shade(normals(cv2.GaussianBlur(top * px, (0, 0), 0.8)), albedo.astype(np.float32), finish, light, inside)
    return Patch(0, 0, 0, inside, rgb, radius * px)


def _shaving(rng: Rng, px: float, light: Light) -> Patch:
    turn = np.linspace(0, rng.uniform(1.5, 6.5), 50) * (1 if rng.random() < 0.5 else -1)
    radius = rng.uniform(1.2, 4.0) * (1 + 0.10 * np.abs(turn))
    drift = rng.uniform(0.2, 1.4) * np.abs(turn)
    heading = rng.uniform(0, 2 * np.pi)
    points = np.stack(
        [radius * np.cos(turn) + drift * np.cos(heading), radius * np.sin(turn) + drift * np.sin(heading)], 1
    )
    finish = STEEL if rng.random() < 0.6 else Finish(linear(214, 176, 124), 0.0, 0.8)
    return _strand(rng, points, rng.uniform(0.5, 1.2), px, light, finish, 0.4)


CLUTTER: dict[str, Callable[[Rng, float, Light], Patch]] = {
    "cable": _cable,
    "cable_tie": _cable_tie,
    "pencil": _pencil,
    "hex_key": _hex_key,
    "screwdriver": _screwdriver,
    "paper_scrap": _paper_scrap,
    "masking_tape": _masking_tape,
    "ruler": _ruler,
    "wall_plug": _wall_plug,
    "shaving": _shaving,
}
"""Clutter by name: (generator, canvas pixels per mm, light) -> patch at the origin."""
