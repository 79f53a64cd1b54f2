"""Render workbench surfaces of the demo set: wood, steel, mats, cardboard, concrete, cloth and worn paint."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from detseg.synthetic.demo.shading import Float, Light, Rng, linear, mottle, step

COARSE = 2  # canvas pixels per texture pixel: finer than the final image, and four times faster


def make_bench(rng: Rng, name: str, size_hw: tuple[int, int], px_per_mm: float, light: Light) -> Float:
    """The empty bench, lit: linear float32 [H, W, 3] of canvas size ``size_hw``, rotated by a random angle."""
    side = int(np.hypot(*size_hw) / COARSE) + 8
    colour, bump = TEXTURES[name](rng, side, px_per_mm / COARSE)
    colour, bump = _add_dirt(rng, colour, bump, px_per_mm / COARSE)
    angle = rng.uniform(0, 2 * np.pi)
    slope_x = cv2.Sobel(bump, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    slope_y = cv2.Sobel(bump, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    lamp_x = np.cos(angle) * light.direction[0] + np.sin(angle) * light.direction[1]
    lamp_y = np.cos(angle) * light.direction[1] - np.sin(angle) * light.direction[0]
    relief = np.clip(1 - 1.3 * (slope_x * lamp_x + slope_y * lamp_y) / light.direction[2], 0.25, 2.2)
    lit = colour * relief[..., None] * (light.ambient + (1 - light.ambient) * 1.25 * light.direction[2])
    cos, sin, half = np.cos(angle), np.sin(angle), side / 2
    to_texture = np.array([[cos, sin, 0.0], [-sin, cos, 0.0]]) / COARSE
    to_texture[:, 2] = half - to_texture[:, :2] @ (np.array(size_hw[::-1]) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    rotated = cv2.warpAffine(lit, to_texture, size_hw[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT)
    y, x = np.mgrid[-1 : 1 : size_hw[0] * 1j, -1 : 1 : size_hw[1] * 1j].astype(np.float32)
    falloff = 1 + rng.uniform(0.05, 0.28) * (x * light.direction[0] + y * light.direction[1])
    return np.asarray(rotated * falloff[..., None] * np.array(light.colour, np.float32), np.float32)


def _wood(rng: Rng, side: int, px: float) -> tuple[Float, Float]:
    dark, pale = (
        ((150, 104, 62), (214, 172, 120)),
        ((116, 78, 48), (176, 130, 84)),
        ((70, 46, 32), (122, 86, 58)),
        ((126, 116, 102), (176, 166, 150)),
        ((190, 158, 112), (232, 206, 164)),
    )[int(rng.integers(5))]
    size = (side, side)
    row = np.arange(side, dtype=np.float32)[:, None] / px
    warp = mottle(rng, size, (14 * px, 90 * px), 3)
    plank = rng.uniform(38, 90)
    number = ((row + rng.uniform(0, plank)) // plank).astype(int)
    plank_value = rng.random(64, dtype=np.float32)[number % 64]
    growth = row / rng.uniform(2.2, 4.5) + 5.5 * warp + 9 * plank_value
    rings = growth - np.floor(growth)
    rings = rings**2 * step(1.0, 0.82, rings)  # late wood: gradually darker, then abruptly light
    fibre = mottle(rng, size, (max(0.35 * px, 1.0), 18 * px), 2)
    pores = step(0.74, 0.82, mottle(rng, size, (max(0.3 * px, 1.0), 5 * px)))
    mix = 0.75 - 0.55 * rings + 0.5 * (fibre - 0.5) + 0.3 * (plank_value - 0.5) - 0.3 * pores
    colour = _blend(dark, pale, mix)
    seam = np.zeros((side, 1), np.float32)
    seam[1:] = np.diff(number, axis=0) != 0
    seam = np.clip(cv2.GaussianBlur(seam, (1, 5), 0, sigmaY=0.6 + 0.12 * px) * (1.2 + 0.3 * px), 0, 1)
    return colour * (1 - 0.75 * seam[..., None]), (0.5 * fibre - 0.4 * pores - 2 * seam).astype(np.float32)


def _steel(rng: Rng, side: int, px: float) -> tuple[Float, Float]:
    size = (side, side)
    brushed = 0.6 * mottle(rng, size, (1, 60 * px)) + 0.4 * mottle(rng, size, (1, 12 * px))
    smudge = mottle(rng, size, (22 * px, 30 * px), 3)
    grey = int(rng.integers(105, 175))
    colour = _blend(
        (grey - 38, grey - 36, grey - 32), (grey + 40, grey + 41, grey + 44), brushed + 0.7 * (smudge - 0.5)
    )
    scratch = _scratches(rng, size, px, int(rng.integers(4, 16)))
    return colour * (1 + 0.5 * scratch[..., None]), 0.7 * brushed - 0.8 * scratch


def _rubber_mat(rng: Rng, side: int, px: float) -> tuple[Float, Float]:
    size = (side, side)
    grain = mottle(rng, size, (0.5 * px, 0.5 * px), 2)
    crumbs = mottle(rng, size, (0.8 * px, 0.8 * px))
    base = int(rng.integers(34, 66))
    colour = _blend((base - 14,) * 3, (base + 22, base + 22, base + 24), grain)
    if rng.random() < 0.6:
        tint = ((70, 96, 140), (150, 70, 60), (150, 150, 150), (80, 120, 80))[int(rng.integers(4))]
        colour = _over(colour, tint, 0.7 * step(0.86, 0.92, crumbs))
    bump = 1.2 * grain
    if rng.random() < 0.5:  # round studs
        pitch = rng.uniform(7, 12) * px
        y, x = np.mgrid[0:side, 0:side].astype(np.float32)
        row_offset = np.floor(y / pitch) % 2 * 0.5
        distance = np.hypot(y / pitch % 1 - 0.5, (x / pitch + row_offset) % 1 - 0.5)
        stud = step(0.31, 0.22, distance)
        bump = bump + 0.16 * pitch * stud
        colour = colour * (1 + 0.18 * stud[..., None])
    return colour, bump


def _cutting_mat(rng: Rng, side: int, px: float) -> tuple[Float, Float]:
    size = (side, side)
    ground = ((50, 96, 78), (56, 78, 108), (92, 96, 100), (58, 58, 62), (138, 88, 100))[int(rng.integers(5))]
    grain = mottle(rng, size, (0.45 * px, 0.45 * px), 2)
    colour = _blend(tuple(int(0.84 * c) for c in ground), tuple(int(1.12 * c) for c in ground), grain)
    lines = np.zeros(size, np.uint8)
    spacing = 10 * px
    start = rng.uniform(0, spacing, 2)
    for k in range(int(side / spacing) + 1):
        weight = max(1, round(0.45 * px)) if k % 5 == 0 else max(1, round(0.2 * px))
        brightness = 255 if k % 5 == 0 else 165
        position = [int(start[0] + k * spacing), int(start[1] + k * spacing)]
        cv2.line(lines, (position[0], 0), (position[0], side), brightness, weight)
        cv2.line(lines, (0, position[1]), (side, position[1]), brightness, weight)
        if k % 5 == 0:
            text_xy = (position[0] + 3, int(start[1]) + 24)
            cv2.putText(lines, str(k), text_xy, cv2.FONT_HERSHEY_SIMPLEX, 0.09 * px, 200, 1)
    printed = np.asarray(lines, np.float32) / np.float32(255) * (0.35 + 0.5 * mottle(rng, size, (9 * px, 9 * px), 2))
    colour = _over(colour, (214, 214, 190), np.float32(0.75) * printed)
    cuts = _scratches(rng, size, px, int(rng.integers(3, 14)))
    return colour * (1 - 0.25 * cuts[..., None]), 0.8 * grain - cuts


def _cardboard(rng: Rng, side: int, px: float) -> tuple[Float, Float]:
    size = (side, side)
    white = rng.random() < 0.35
    dark, pale = ((206, 204, 196), (240, 239, 234)) if white else ((164, 126, 84), (206, 170, 124))
    fibre = mottle(rng, size, (0.6 * px, 2.2 * px), 3)
    flute = mottle(rng, (side, 1), (2.4 * px, 1), 1) * (0.0 if white else 1.0)
    specks = step(0.93, 0.97, mottle(rng, size, (0.4 * px, 0.7 * px)))
    colour = _blend(dark, pale, 0.2 + 0.6 * fibre + 0.25 * flute) * (1 - 0.3 * specks[..., None])
    return colour, (0.6 * fibre + 1.2 * flute).astype(np.float32)


def _concrete(rng: Rng, side: int, px: float) -> tuple[Float, Float]:
    size = (side, side)
    clouds = mottle(rng, size, (30 * px, 30 * px), 6)
    sand = mottle(rng, size, (0.5 * px, 0.5 * px), 2)
    pits = step(0.85, 0.93, mottle(rng, size, (1.6 * px, 1.6 * px), 2))
    grey = int(rng.integers(105, 165))
    mix = 0.5 + 1.3 * (clouds - 0.5) + 0.6 * (sand - 0.5) - 0.7 * pits
    colour = _blend((grey - 40, grey - 42, grey - 46), (grey + 40, grey + 38, grey + 32), mix)
    return colour, (0.9 * sand - 3 * pits).astype(np.float32)


def _rag(rng: Rng, side: int, px: float) -> tuple[Float, Float]:
    size = (side, side)
    dye = ((132, 62, 56), (66, 82, 116), (170, 160, 140), (84, 92, 84), (176, 124, 78))[int(rng.integers(5))]
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) + 5 * mottle(rng, size, (12 * px, 12 * px), 2)
    thread = max(0.75 * px, 2.6)
    over = (np.floor(y / thread) + np.floor(x / thread)) % 2
    bulge = np.where(over > 0, np.sin(np.pi * (y / thread % 1)), np.sin(np.pi * (x / thread % 1)))
    fuzz = mottle(rng, size, (0.5 * px, 0.5 * px), 2)
    folds = mottle(rng, size, (45 * px, 20 * px), 2)
    colour = _blend(
        tuple(int(0.62 * c) for c in dye), tuple(min(int(1.2 * c), 250) for c in dye), 0.45 * bulge + 0.5 * fuzz
    )
    return colour, (0.30 * thread * bulge + 7 * px * folds + 0.5 * fuzz).astype(np.float32)


def _worn_paint(rng: Rng, side: int, px: float) -> tuple[Float, Float]:
    size = (side, side)
    coat = ((58, 92, 120), (96, 116, 96), (150, 148, 138), (176, 144, 60), (128, 60, 48))[int(rng.integers(5))]
    clouds = mottle(rng, size, (25 * px, 25 * px), 5)
    peel = mottle(rng, size, (2.4 * px, 2.4 * px), 2)
    colour = _blend(tuple(int(0.85 * c) for c in coat), tuple(int(1.12 * c) for c in coat), clouds)
    wear = mottle(rng, size, (11 * px, 11 * px), 6)
    chip = step(0.655, 0.675, wear)
    under = step(0.69, 0.71, wear)
    colour = _over(colour, (150, 138, 124), 0.85 * chip)
    colour = _over(colour, (96, 70, 54), 0.85 * under)
    return colour, (0.8 * peel - 1.4 * chip).astype(np.float32)


TEXTURES: dict[str, Callable[[Rng, int, float], tuple[Float, Float]]] = {
    "plank_wood": _wood,
    "brushed_steel": _steel,
    "rubber_mat": _rubber_mat,
    "cutting_mat": _cutting_mat,
    "cardboard": _cardboard,
    "concrete": _concrete,
    "woven_rag": _rag,
    "worn_paint": _worn_paint,
}
"""Bench surfaces by name: (generator, side, texture pixels per mm) -> linear colour [S, S, 3] and height [S, S]."""


def _add_dirt(rng: Rng, colour: Float, bump: Float, px: float) -> tuple[Float, Float]:
    """Add oil stains, cup rings and dust."""
    side = len(colour)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        centre, radius = rng.uniform(0.1, 0.9, 2) * side, rng.uniform(4, 22) * px
        ragged = np.hypot(y - centre[0], x - centre[1]) / radius + 0.9 * mottle(rng, (side, side), (radius, radius), 4)
        if rng.random() < 0.3:
            spot = 0.35 * step(1.30, 1.38, ragged) * step(1.52, 1.42, ragged)
        else:
            spot = rng.uniform(0.15, 0.5) * step(1.5, 1.25, ragged)
        colour = colour * (1 - spot[..., None] * np.array([0.75, 0.85, 1.0], np.float32))
    grain = min(0.4 * px, 2.6)
    dust = step(0.90, 0.96, mottle(rng, (side, side), (grain, grain)))
    pale = np.array(linear(190, 180, 164), np.float32)
    amount = np.float32(rng.uniform(0, 0.5))
    return colour + (pale - colour) * (amount * dust)[..., None], bump + 0.3 * dust


def _scratches(rng: Rng, size: tuple[int, int], px: float, count: int) -> Float:
    """float32 [H, W] in [0, 1]: ``count`` fine, slightly bent lines."""
    drawing = np.zeros(size, np.uint8)
    for _ in range(count):
        start = rng.uniform(0, 1, 2) * size[::-1]
        heading, length = rng.uniform(0, 2 * np.pi), rng.uniform(8, 90) * px
        along = np.linspace(0, 1, 12)[:, None]
        bend = heading + rng.normal(0, 0.15) * along
        points = start + along * length * np.concatenate([np.cos(bend), np.sin(bend)], axis=1)
        cv2.polylines(
            drawing, [np.round(points * 16).astype(np.int32)], False, int(rng.integers(70, 255)), 1, cv2.LINE_AA, 4
        )
    return np.asarray(drawing, np.float32) / np.float32(255)


def _blend(dark: tuple[int, ...], pale: tuple[int, ...], mix: Float) -> Float:
    """sRGB ``dark`` at 0 to ``pale`` at 1, blended in linear light; ``mix`` may slightly exceed [0, 1]."""
    low, high = (np.array(linear(*colour), np.float32) for colour in (dark, pale))
    return np.asarray(low + (high - low) * np.clip(mix, -0.25, 1.3)[..., None], np.float32).clip(0.002, 1)


def _over(colour: Float, top: tuple[int, int, int], share: Float) -> Float:
    """Blend an sRGB colour over ``colour`` with opacity ``share`` [H, W]."""
    return colour + (np.array(linear(*top), np.float32) - colour) * share[..., None]
