"""Render the three kinds of parts in the demo set as lit patches: bolts, nuts and washers, by metric size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from detseg.synthetic.demo.shading import (
    Finish,
    Float,
    Light,
    Patch,
    Rng,
    linear,
    local_frame,
    mottle,
    normals,
    shade,
    step,
)

Float64 = npt.NDArray[np.float64]

CLASSES = ("bolt", "nut", "washer")

SHAPE_FAMILIES = (
    "bolt_hex_head", "bolt_pan_head", "bolt_socket_cap", "bolt_countersunk",
    "nut_hex", "nut_flange", "nut_nylon_insert",
    "washer_flat", "washer_fender", "washer_split", "washer_star",
)  # fmt: skip
"""Outline families of annotated parts; other synthetic sets of this package must use different ones."""

FINISHES = {
    "zinc": Finish(linear(184, 190, 196), 0.92, 0.42),
    "stainless": Finish(linear(196, 192, 187), 0.95, 0.30),
    "yellow_zinc": Finish(linear(205, 178, 112), 0.90, 0.38),
    "brass": Finish(linear(214, 172, 84), 0.93, 0.30),
    "black_oxide": Finish(linear(82, 82, 86), 0.70, 0.45),
    "old_steel": Finish(linear(158, 152, 146), 0.75, 0.62, rust=0.35),
    "rusty": Finish(linear(128, 112, 102), 0.4, 0.85, rust=0.8),
}
_FINISH_ODDS = (0.27, 0.2, 0.12, 0.13, 0.12, 0.09, 0.07)

# Metric thread -> (across flats, nut height, head height, pitch, washer outer, washer hole, washer thickness), mm;
# rounded from ISO 4032, ISO 4017 and ISO 7089.
_METRIC = {
    3: (5.5, 2.4, 2.0, 0.5, 7.0, 3.2, 0.5),
    4: (7.0, 3.2, 2.8, 0.7, 9.0, 4.3, 0.8),
    5: (8.0, 4.7, 3.5, 0.8, 10.0, 5.3, 1.0),
    6: (10.0, 5.2, 4.0, 1.0, 12.0, 6.4, 1.6),
    8: (13.0, 6.8, 5.3, 1.25, 16.0, 8.4, 1.6),
    10: (16.0, 8.4, 6.4, 1.5, 20.0, 10.5, 2.0),
    12: (18.0, 10.8, 7.5, 1.75, 24.0, 13.0, 2.5),
}
SIZES = tuple(_METRIC)


def make_part(rng: Rng, family: str, metric: int, px_per_mm: float, light: Light, lean: tuple[float, float]) -> Patch:
    """A part of ``family`` at the origin.

    Args:
        metric: thread size, one of ``SIZES``.
        px_per_mm: canvas pixels per millimetre.
        lean: shift in x and y of the top of a part of height 1, due to the camera's oblique view.
    """
    finish = FINISHES[str(rng.choice(list(FINISHES), p=_FINISH_ODDS))]
    kind, variant = family.split("_", 1)
    return _MAKERS[kind](rng, variant, metric, px_per_mm, light, lean, finish)


def _nut(
    rng: Rng, variant: str, metric: int, px: float, light: Light, lean: tuple[float, float], finish: Finish
) -> Patch:
    flats, height = _METRIC[metric][:2]
    hole = 0.43 * metric
    rim = 0.68 * flats if variant == "flange" else 0.58 * flats
    u, v = local_frame((rim, rim), rng.uniform(0, 2 * np.pi), px)
    radius = np.sqrt(u * u + v * v)
    hexagon = np.max([np.abs(u * np.cos(a) + v * np.sin(a)) for a in np.radians([0, 60, 120])], axis=0) - flats / 2
    outline = np.minimum(hexagon, radius - rim) if variant == "flange" else hexagon
    outline = np.maximum(outline, hole - radius)
    top = height - 0.55 * np.maximum(radius - 0.475 * flats, 0)  # the 30 degree chamfer that rounds the corners
    top = top - 1.1 * np.maximum(0.54 * metric - radius, 0)
    if variant == "flange":
        ledge = 0.25 * height - 0.25 * (radius - flats / 2)
        top = ledge + (top - ledge) * (1 - step(-0.12, 0.35, hexagon))
    albedo = _metal(rng, finish, u, v, px, radius)
    if variant == "nylon_insert":
        collar = 0.40 * flats
        top = top - 0.8 * np.maximum(radius - collar, 0) + 0.25 * step(collar, collar - 0.5, radius)
        ring = step(0.62 * metric, 0.62 * metric - 2 / px, radius)[..., None]
        nylon = [linear(70, 110, 190), linear(225, 225, 215), linear(60, 60, 66)][int(rng.integers(3))]
        albedo = albedo * (1 - ring) + 0.8 * ring * np.array(nylon, np.float32)
    thread = step(0.53 * metric, 0.47 * metric, radius)
    groove = 0.5 + 0.5 * np.cos(2 * np.pi * (radius - hole) / max(0.035 * metric, 2.2 / px))
    if variant != "nylon_insert":
        albedo = albedo * (1 - thread * (0.35 + 0.35 * groove.astype(np.float32)))[..., None]
    wall = height if variant != "flange" else 0.3 * height
    return _flat_part(rng, 2, outline, top, wall, albedo, finish, px, light, lean)


def _washer(
    rng: Rng, variant: str, metric: int, px: float, light: Light, lean: tuple[float, float], finish: Finish
) -> Patch:
    outer, hole, thickness = (value / scale for value, scale in zip(_METRIC[metric][4:], (2, 2, 1), strict=True))
    if variant == "fender":
        outer *= rng.uniform(1.35, 1.7)
    if variant == "split":
        outer, thickness = hole + 0.24 * metric + 0.3, thickness * 1.5
    u, v = local_frame((outer * 1.05, outer * 1.05), rng.uniform(0, 2 * np.pi), px)
    radius = np.sqrt(u * u + v * v)
    edge: Float64 = np.full_like(radius, outer)
    if variant == "star":
        teeth = 8 + 2 * int(rng.integers(3))
        wave = np.cos(teeth * np.arctan2(v, u))
        edge = hole + (outer - hole) * (0.62 + 0.38 * step(-0.15, 0.15, wave).astype(np.float64))
    outline = np.maximum(radius - edge, hole - radius)
    bevel = min(0.28, 0.25 * thickness)
    top = thickness - 0.7 * np.maximum(outline + bevel, 0)
    top = top + 0.06 * thickness * (1 if rng.random() < 0.5 else -1) * (radius - hole) / (outer - hole)
    if variant == "split":
        slit = np.where(u > 0, np.abs(v + 0.35 * (u - outer)) - max(0.32, 0.09 * metric), -u)
        outline = np.maximum(outline, -slit)
        top = top + 0.35 * thickness * np.sign(v) * step(0.0, outer, u)
    if variant == "star":
        top = top + 0.35 * step(hole + 0.5 * (outer - hole), outer, radius) * np.sin(teeth * np.arctan2(v, u))
    albedo = _metal(rng, finish, u, v, px, radius)
    return _flat_part(rng, 3, outline, top, thickness, albedo, finish, px, light, lean)


def _bolt(
    rng: Rng, variant: str, metric: int, px: float, light: Light, lean: tuple[float, float], finish: Finish
) -> Patch:
    flats, _, head_height, pitch = _METRIC[metric][:4]
    length = metric * rng.uniform(2.2, 7.5)
    shank_radius = metric / 2
    unthreaded = length * rng.uniform(0.25, 0.5) if rng.random() < 0.4 else 0.6 * pitch
    if variant == "countersunk":
        head_height = 0.55 * metric
    elif variant == "socket_cap":
        head_height = float(metric)
    elif variant == "pan_head":
        head_height = 0.65 * metric
    half_u = (length + head_height) / 2
    u, v = local_frame((half_u, 1.05 * metric), rng.uniform(0, 2 * np.pi), px)
    u = u + length - half_u  # the head ends at u = 0, the shank at u = length
    around = np.arcsin(np.clip(v / shank_radius, -1, 1)) / (2 * np.pi)
    phase = u / max(pitch, 3.2 / px) - around * (1 if rng.random() < 0.97 else -1)
    tooth = np.abs(2 * (phase - np.floor(phase)) - 1)
    threaded = step(unthreaded - 0.2 * pitch, unthreaded + 0.2 * pitch, u).astype(np.float64)
    depth = max(0.61 * pitch, 1.4 / px)
    shank = shank_radius - threaded * depth * tooth - np.maximum(u - (length - 0.9 * pitch), 0) * 0.8
    shank = np.where((u >= 0) & (u <= length), shank, -1.0)
    head, head_radius = _head(rng, variant, u, v, metric, flats, head_height)
    height = np.maximum(np.where(np.abs(v) < shank, np.sqrt(np.maximum(shank**2 - v**2, 0)), -1.0), head)
    inside = height >= 0
    top = np.where(inside, height, 0.0) * px
    groove = 1 - 0.45 * threaded * tooth * (u > 0)
    albedo = _metal(rng, finish, u, v, px, u) * groove.astype(np.float32)[..., None]
    albedo *= (1 - 0.35 * step(0.9, 0.0, np.abs(u) / (0.35 * metric)) * (u > 0))[..., None]  # dark corner at the head
    tilt = (float(rng.normal(0, 0.05)), float(rng.normal(0, 0.05)))
    rgb = shade(normals(top, tilt), albedo, finish, light, inside)
    return Patch(1, 0, 0, inside, rgb, 0.8 * max(head_radius, shank_radius) * px)


def _head(
    rng: Rng, variant: str, u: Float64, v: Float64, metric: int, flats: float, height: float
) -> tuple[Float64, float]:
    """Surface of the head of a bolt on its side, which spans u in [-height, 0]; -1 outside. Also its radius."""
    t = -u / height
    if variant == "hex_head":
        turn = rng.uniform(0, np.pi / 3)
        faces = [turn + k * np.pi / 3 for k in range(6)]
        surface = np.min([(flats / 2 - v * np.cos(a)) / np.sin(a) for a in faces if np.sin(a) > 0.05], axis=0)
        corner = flats / np.sqrt(3)
        half = corner * max(abs(np.cos(a + np.pi / 6)) for a in faces)
        ring = corner - 0.6 * np.maximum(t - 0.75, 0) * height  # chamfer at the free end
        surface = np.minimum(surface, np.sqrt(np.maximum(ring**2 - v**2, 0)))
        inside = (t >= 0) & (t <= 1) & (np.abs(v) < np.minimum(half, ring))
        return np.where(inside, np.maximum(surface, 0), -1.0), float(half)
    if variant == "pan_head":
        radius = 0.98 * metric * np.sqrt(np.maximum(1 - np.clip(t, 0, 1) ** 2.6, 0))
    elif variant == "countersunk":
        radius = metric * (0.5 + 0.46 * np.clip(t / 0.85, 0, 1))
    else:
        radius = 0.76 * metric - 0.25 * np.maximum(t - 0.92, 0) * height
        knurl = np.arcsin(np.clip(v / (0.76 * metric), -1, 1)) * 14
        radius = radius - 0.02 * metric * (np.cos(knurl * 2) > 0.2) * ((t > 0.06) & (t < 0.86))
    inside = (t >= 0) & (t <= 1) & (np.abs(v) < radius)
    return np.where(inside, np.sqrt(np.maximum(radius**2 - v**2, 0)), -1.0), 0.9 * metric


def _flat_part(
    rng: Rng,
    label: int,
    outline: Float64,
    top: Float64,
    wall: float,
    albedo: Float,
    finish: Finish,
    px: float,
    light: Light,
    lean: tuple[float, float],
) -> Patch:
    """A flat part of height ``wall`` mm: copies of its outline shifted along ``lean``, walls below, face on top."""
    inside = outline < 0
    tilt = (float(rng.normal(0, 0.09)), float(rng.normal(0, 0.09)))
    top = top + 0.22 * mottle(
        rng, top.shape, (5 * px, 5 * px), 2
    )  # no face is perfectly flat: reflections vary over it
    face = shade(normals(top * px, tilt), albedo, finish, light, inside)
    side_normal = normals(-outline * px * 6)  # a steep slope: the normal points out of the wall
    side = shade(side_normal, albedo, finish, light, inside) * np.float32(0.75)
    shift = np.array([lean[1], lean[0]]) * wall * px
    slices = int(np.ceil(np.abs(shift).max())) + 1
    offsets = np.round(np.linspace(0, 1, slices)[:, None] * shift).astype(int)
    low = offsets.min(0)
    height, width = np.array(inside.shape) + np.ptp(offsets, axis=0)
    alpha = np.zeros((height, width), np.bool_)
    rgb = np.zeros((height, width, 3), np.float32)
    for number, (down, right) in enumerate(offsets - low):
        window = (slice(down, down + inside.shape[0]), slice(right, right + inside.shape[1]))
        alpha[window] |= inside
        layer = face if number == slices - 1 else side * np.float32(0.6 + 0.4 * number / slices)
        np.copyto(rgb[window], layer, where=inside[..., None])
    return Patch(label, 0, 0, alpha, rgb, wall * px)


def _metal(rng: Rng, finish: Finish, u: Float64, v: Float64, px: float, along: Float64) -> Float:
    """float32 [h, w, 3] colour of the surface: machining marks along lines of constant ``along``, stains and rust."""
    size = u.shape
    marks = rng.random(512, dtype=np.float32)[(np.abs(along) * px / 2.5).astype(int) % 512]
    blotches = mottle(rng, size, (2.2 * px, 2.2 * px), 4)
    albedo = np.array(finish.colour, np.float32) * (0.86 + 0.16 * marks + 0.3 * (blotches - 0.5))[..., None]
    if finish.rust:
        patches = mottle(rng, size, (3.5 * px, 3.5 * px), 5)
        level = 0.60 - 0.32 * finish.rust
        rusted = 0.9 * step(level, level + 0.3, patches)[..., None]
        brown = np.array(linear(112, 72, 48), np.float32) * (0.4 + 1.1 * blotches)[..., None]
        albedo = albedo * (1 - rusted) + rusted * brown
    return albedo


_MAKERS: dict[str, Callable[[Rng, str, int, float, Light, tuple[float, float], Finish], Patch]] = {
    "bolt": _bolt,
    "nut": _nut,
    "washer": _washer,
}
