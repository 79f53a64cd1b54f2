"""Define the options of tiles: of training, and of a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import detseg.options.defaults as defaults
from detseg.options.field import option

_SIZES: dict[str, Any] = {"least": 0, "limit": 16_384, "example": 512}
_OVERLAPS: dict[str, Any] = {"least": 0.05, "most": 0.8, "example": 0.2}


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """Tiles that large images are cut into."""

    tile: int | None = option(
        None,
        "cut images into square tiles with sides of this many pixels, so that small objects in large images keep their "
        "detail; 0 for none",
        "that of the weights; whole images",
        **_SIZES,
    )
    overlap: float | None = option(
        None,
        "share of a tile that the next one repeats; objects up to this size are whole in a tile",
        chosen=[defaults.OVERLAP],
        **_OVERLAPS,
    )
    whole_image: bool | None = option(
        None,
        "the network also gets each whole image, resized as without tiles",
        chosen=[defaults.WHOLE_IMAGE],
    )
    min_visible: float = option(
        0.4,
        "an object that is cut by a tile is ignored there if less than this share of it is visible, compared with the "
        "tile that shows most of it",
        "fragments teach wrong outlines",
        least=0,
        most=1,
        example=0.4,
    )
    empty_tiles: float = option(
        0.25,
        "share of the tiles without objects that an epoch uses, others in each",
        "they cost time, and teach little",
        least=0,
        most=1,
        example=0.25,
    )


@dataclass(frozen=True, kw_only=True)
class UsedTileOptions:
    """Tiles of a trained model."""

    tile: int | None = option(
        None,
        "cut images into square tiles with sides of this many pixels, and merge their predictions; 0 for whole images",
        "as the model was trained",
        common=True,
        **_SIZES,
    )
    overlap: float | None = option(
        None, "share of a tile that the next one repeats", "as the model was trained, else 0.2", **_OVERLAPS
    )
    whole_image: bool | None = option(
        None,
        "with tiles, also predict each whole image, for objects that no tile shows whole",
        "as the model was trained, else true",
    )
