"""Decide on tiles: whether images are cut, the input size that follows, and the samples of an epoch."""

from __future__ import annotations

from typing import Protocol

import detseg.options.defaults as defaults
from detseg.annotations import AnnotationTable
from detseg.datasets.tile_samples import TileChoice, TileSamples
from detseg.errors import DataError
from detseg.models.build import architecture_of
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import TrainConfig
from detseg.options.field import Default
from detseg.options.plan import Plan
from detseg.preprocess import Preprocessing
from detseg.tiling import Tiling, changed_tiling

SMALLEST_INPUT = 32
"""Smallest input size that is chosen: the stride of the networks."""


class Chosen(Protocol):
    """The options of a run while they are decided."""

    options: TrainConfig

    def __getitem__(self, name: str) -> object: ...

    def choose(self, name: str, default: Default) -> object: ...


def choose_tiles(decisions: Chosen, weights: StartingWeights | None, task: str) -> None:
    """Choose ``tile`` as the weights were trained, and the options that only tiles have.

    Args:
        weights: the starting weights; None for a resumed run.

    Raises:
        DataError: tiles for a classifier; options of tiles without tiles.
    """
    options = decisions.options
    if task == "classify" and options.tile:
        raise DataError(f"--tile {options.tile}: a classifier sees whole images; omit it, or train another task")
    trained = None if weights is None or weights.description is None else weights.description.preprocessing.tiling
    if trained is not None and task != "classify":
        decisions.choose("tile", Default(trained.size, "as the weights were trained; 0 for whole images"))
    if decisions["tile"]:
        decisions.choose("overlap", defaults.OVERLAP)
        decisions.choose("whole_image", defaults.WHOLE_IMAGE)
        return
    plain = TrainConfig()
    for name in ("overlap", "whole_image", "min_visible", "empty_tiles"):
        if getattr(options, name) != getattr(plain, name):
            raise DataError(f"--{name.replace('_', '-')} without --tile: it has no effect; add --tile SIZE, or omit it")


def default_tile_size(arch: str, decisions: Chosen) -> Default | None:
    """The default of ``image_size`` with tiles; None without them, or for a model of fixed size."""
    if not decisions["tile"] or architecture_of(arch).family == "ssdlite":
        return None
    side: int = decisions["tile"]  # type: ignore[assignment]
    return Default(max(side, SMALLEST_INPUT), "the side of a tile: no detail is lost")


def tiling_of(decisions: Chosen) -> Tiling | None:
    """The tiling that is decided; None for whole images."""
    tile, overlap, whole_image = (decisions[name] for name in ("tile", "overlap", "whole_image"))
    return changed_tiling(None, tile or 0, overlap, whole_image)  # type: ignore[arg-type]  # of any option


def tile_samples(decisions: Chosen, arch: str, train: AnnotationTable) -> TileSamples | None:
    """The training samples of an epoch; None for whole images."""
    tiling = tiling_of(decisions)
    if tiling is None:
        return None
    size: int = decisions["image_size"] or architecture_of(arch).image_size[0]  # type: ignore[assignment]
    choice = TileChoice(decisions.options.min_visible, decisions.options.empty_tiles)
    return TileSamples(train, _preprocessing(arch, size, tiling), choice)


def tile_lines(plan: Plan, train: AnnotationTable) -> list[str]:
    """The number of tiles for the terminal, and a warning if no image is cut; none for whole images."""
    tiling, arch = plan.tiles.tiling, plan.model.model
    if tiling is None:
        return []
    preprocessing = _preprocessing(arch, plan.model.image_size or architecture_of(arch).image_size[0], tiling)
    samples = TileSamples(train, preprocessing, choice_of(plan))
    lines = [f"tiles: {samples.line(len(train))}"]
    if samples.total == len(train):
        lines.append(f"  warning: no training image is larger than a tile of {tiling.size} px, so none is cut")
    return lines


def choice_of(plan: Plan) -> TileChoice:
    """Which objects and tiles a run trains on."""
    return TileChoice(plan.tiles.min_visible, plan.tiles.empty_tiles)


def _preprocessing(arch: str, size: int, tiling: Tiling) -> Preprocessing:
    """That of the model, as far as it decides on the tiles."""
    return Preprocessing(size, 0, stretch=architecture_of(arch).family == "ssdlite", tiling=tiling)
