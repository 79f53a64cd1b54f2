"""Generate random scalar fields float32 [H, W] in [0, 1], for colours and relief of surfaces. Lengths are pixels."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Rng = np.random.Generator


def make_texture(rng: Rng, name: str, size_hw: tuple[int, int], grain: float) -> Field:
    """A random field of the kind ``name`` whose features are about ``grain`` pixels wide."""
    return TEXTURES[name](rng, size_hw, max(grain, 1.5))


def lattice_noise(rng: Rng, size_hw: tuple[int, int], grain: float, octaves: int = 1) -> Field:
    """Value noise: random numbers on a lattice of ``grain`` pixels, smoothly upsampled; finer octaves weigh less."""
    height, width = size_hw
    total, share = np.zeros(size_hw, np.float32), 0.5
    for octave in range(octaves):
        cell = max(grain / 2**octave, 1.0)
        rows, columns = int(height / cell) + 2, int(width / cell) + 2
        lattice = rng.random((rows, columns), dtype=np.float32)
        enlarged = cv2.resize(lattice, (round(columns * cell), round(rows * cell)), interpolation=cv2.INTER_CUBIC)
        total += share * enlarged[:height, :width] if octaves > 1 else enlarged[:height, :width]
        share /= 2
    return np.clip(total, 0, 1)


def _grid(size_hw: tuple[int, int]) -> tuple[Field, Field]:
    y = np.arange(size_hw[0], dtype=np.float32)[:, None]
    x = np.arange(size_hw[1], dtype=np.float32)[None, :]
    return x, y


def _along_random_direction(rng: Rng, size_hw: tuple[int, int]) -> Field:
    """The pixel coordinate along a random direction."""
    x, y = _grid(size_hw)
    angle = rng.uniform(0, 2 * np.pi)
    return x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))


def _wave_of(rng: Rng, phase: Field) -> Field:
    """Sine, triangle or square wave of a phase in periods, in [0, 1]."""
    kind = rng.integers(3)
    if kind == 0:
        return 0.5 + 0.5 * np.sin(2 * np.float32(np.pi) * phase)
    ramp = np.abs(2 * (phase - np.floor(phase)) - 1)
    return ramp if kind == 1 else np.clip((ramp - np.float32(rng.uniform(0.3, 0.7))) * 8 + 0.5, 0, 1)


def _cloud(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    return lattice_noise(rng, size_hw, 4 * grain, 4)


def _ridges(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    return 1 - np.abs(2 * lattice_noise(rng, size_hw, 3 * grain, 2) - 1)


def _grating(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    return _wave_of(rng, _along_random_direction(rng, size_hw) / np.float32(2 * grain))


def _bent_grating(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    bend = np.float32(rng.uniform(0.5, 3)) * lattice_noise(rng, size_hw, 8 * grain)
    return _wave_of(rng, _along_random_direction(rng, size_hw) / np.float32(2 * grain) + bend)


def _ripples(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    x, y = _grid(size_hw)
    centre = rng.uniform(0, 1, 2) * size_hw
    distance = np.sqrt((y - np.float32(centre[0])) ** 2 + (x - np.float32(centre[1])) ** 2)
    return _wave_of(rng, np.asarray(distance / np.float32(2 * grain), np.float32))


def _rays(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    x, y = _grid(size_hw)
    centre = rng.uniform(0.2, 0.8, 2) * size_hw
    turn = np.arctan2(y - np.float32(centre[0]), x - np.float32(centre[1])) / np.float32(2 * np.pi)
    return _wave_of(rng, turn * int(rng.integers(4, 16)))


def _checks(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    angle = rng.uniform(0, np.pi)
    x, y = _grid(size_hw)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across, along = np.floor((x * cos + y * sin) / grain), np.floor((y * cos - x * sin) / grain)
    return np.asarray((across + along) % 2, np.float32)


def _polka(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    angle = rng.uniform(0, np.pi)
    x, y = _grid(size_hw)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    period = np.float32(2.5 * grain)
    across, along = (x * cos + y * sin) / period, (y * cos - x * sin) / period
    distance = np.hypot(across - np.round(across), along - np.round(along))
    return np.clip((np.float32(rng.uniform(0.2, 0.4)) - distance) * period + 0.5, 0, 1)


def _ramp(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    along = _along_random_direction(rng, size_hw)
    low, high = float(along.min()), float(along.max())
    return (along - np.float32(low)) / np.float32(max(high - low, 1e-6))


def _blots(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    level = np.float32(rng.uniform(0.45, 0.65))
    return np.clip((lattice_noise(rng, size_hw, 4 * grain, 3) - level) * np.float32(rng.uniform(6, 30)) + 0.5, 0, 1)


def _streaks(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    """Noise stretched along one axis, like brush strokes."""
    height, width = size_hw
    long = int(rng.integers(6, 20))
    upright = rng.random() < 0.5
    thin = (height, width // long + 2) if upright else (height // long + 2, width)
    noise = cv2.resize(lattice_noise(rng, thin, max(grain / 2, 1)), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(noise, np.float32)


def _mosaic(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    """Cells of random brightness around random points."""
    x, y = _grid(size_hw)
    count = int(np.clip(size_hw[0] * size_hw[1] / (4 * grain) ** 2, 3, 24))
    nearest = np.full(size_hw, np.inf, np.float32)
    result = np.zeros(size_hw, np.float32)
    for row, column, value in rng.random((count, 3), dtype=np.float32):
        distance = (y - row * size_hw[0]) ** 2 + (x - column * size_hw[1]) ** 2
        closer = distance < nearest
        nearest[closer], result[closer] = distance[closer], value
    return result


def _grit(rng: Rng, size_hw: tuple[int, int], grain: float) -> Field:
    field = rng.random(size_hw, dtype=np.float32)
    return np.clip((cv2.blur(field, (2, 2)) - 0.5) * 2.5 + 0.5, 0, 1)


TEXTURES: dict[str, Callable[[Rng, tuple[int, int], float], Field]] = {
    "cloud": _cloud,
    "ridges": _ridges,
    "grating": _grating,
    "bent_grating": _bent_grating,
    "ripples": _ripples,
    "rays": _rays,
    "checks": _checks,
    "polka": _polka,
    "ramp": _ramp,
    "blots": _blots,
    "streaks": _streaks,
    "mosaic": _mosaic,
    "grit": _grit,
}
"""Texture name -> its function; none is a texture of the demo set, and no code is shared with it."""
