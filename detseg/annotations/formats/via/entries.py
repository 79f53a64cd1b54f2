"""Hold the images and regions of a VIA file, as VIA 1 and 2 store them; those of VIA 3 are converted to the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec


class Shape(msgspec.Struct):
    """The shape of a region, in pixels."""

    name: str
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    cx: float | None = None
    cy: float | None = None
    r: float | None = None
    rx: float | None = None
    ry: float | None = None
    theta: float | None = None
    all_points_x: list[float] = []
    all_points_y: list[float] = []


class Region(msgspec.Struct):
    """One region and its attributes."""

    shape_attributes: Shape
    region_attributes: dict[str, Any] | None = None


class Entry(msgspec.Struct):
    """One image. Regions are a list (VIA 2), or a dict from number to region (VIA 1)."""

    filename: str
    regions: list[Region] | dict[str, Region] = []
    file_attributes: Any = None

    def numbered(self) -> list[tuple[str, Region]]:
        """The regions with their numbers or names."""
        if isinstance(self.regions, dict):
            return list(self.regions.items())
        return [(str(number), region) for number, region in enumerate(self.regions)]


@dataclass(frozen=True)
class ViaFile:
    """The images of one file, and the definitions of its region attributes: name -> options and defaults."""

    entries: list[Entry]
    definitions: dict[str, Any] = field(default_factory=dict)
