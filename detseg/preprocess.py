"""Resize, crop and tile images to network input: one config, saved with the model, for training, prediction, export."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.pixel_values import Range, checked_range
from detseg.tiling import Tiling, starts

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST = 16384
"""Largest input side of a network in pixels; a larger value is a typing error or an attack."""

MAX_ENLARGED = 100_000_000
"""Most pixels of an image that is enlarged for its tiles: as many as are decoded, 300 MB."""


def longer_side(min_size: int) -> int:
    """Limit of the longer side for an input size (the shorter side): 1333 for 800, as in torchvision's training."""
    return round(min_size * 1333 / 800)


@dataclass(frozen=True)
class Geometry:
    """Mapping between the network's input pixels and the original image.

    Network pixels = upright original pixels, resized to ``resized_hw``, then cropped to ``crop_hw`` at ``crop_yx``.

    Attributes:
        original_hw: height and width of the upright original.
        resized_hw: height and width after the (only) resize.
        orientation: EXIF orientation 1..8 that was undone to rotate the image upright.
        crop_yx: top-left corner in the resized image of the centre crop (classifiers) or of the tile; else (0, 0).
        crop_hw: height and width of that crop or tile, which is the network input; None for all of ``resized_hw``.
    """

    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    orientation: int = 1
    crop_yx: tuple[int, int] = (0, 0)
    crop_hw: tuple[int, int] | None = None

    @property
    def network_hw(self) -> tuple[int, int]:
        return self.crop_hw or self.resized_hw

    @property
    def window(self) -> tuple[float, float, float, float]:
        """What the network sees, xyxy in pixels of the upright original."""
        scale_y, scale_x = (a / b for a, b in zip(self.original_hw, self.resized_hw, strict=True))
        (top, left), (height, width) = self.crop_yx, self.network_hw
        return left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y


@dataclass(frozen=True)
class Preprocessing:
    """Input size, value range, normalisation and EXIF handling of a model.

    Attributes:
        min_size: length in pixels that the shorter side is resized to.
        max_size: limit in pixels for the longer side; 0 for none. The smaller scale is used, as in torchvision.
        crop: side of a centre crop in pixels; 0 for none (detectors). Classifiers receive ``crop`` x ``crop`` pixels.
        stretch: resize both sides to ``min_size``, ignoring the aspect ratio (SSD); max_size and crop are then 0.
        mean, std: per-channel normalisation of RGB in [0, 1], applied in the model.
        apply_exif: rotate images upright by their EXIF orientation.
        colour: channel order; only "RGB" is supported.
        tiling: how images are cut into tiles; None for whole images. The side of a tile is resized to ``min_size``, so
            ``resized_hw`` is the size of an image whose tiles are cut from it.
        value_range: lowest and highest value of images with more than 8 bits per channel, which become 0 and 255
            before anything else; usually that of the training images (:func:`detseg.value_range.find_value_range`).
            None: the high byte of 16 bits; floating-point images are an error.
    """

    min_size: int = 800
    max_size: int = 1333
    crop: int = 0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    apply_exif: bool = True
    colour: str = "RGB"
    stretch: bool = False
    value_range: Range | None = None
    tiling: Tiling | None = None

    def __post_init__(self) -> None:
        checked_range(self.value_range, "preprocessing: value range")
        if max(self.min_size, self.max_size) > LARGEST:
            raise DataError(f"preprocessing: image side {max(self.min_size, self.max_size)} pixels; at most {LARGEST}")
        if self.min_size < 1 or self.max_size < 0 or not 0 <= self.crop <= self.min_size:
            raise DataError(
                f"preprocessing: min_size {self.min_size}, max_size {self.max_size}, crop {self.crop}: "
                "min_size must be at least 1, max_size at least 0, crop between 0 and min_size"
            )
        if self.stretch and (self.max_size or self.crop):
            raise DataError(
                f"preprocessing: stretch with max_size {self.max_size} and crop {self.crop}: stretched images are "
                "min_size x min_size; set both to 0"
            )
        if self.tiling is not None and self.crop:
            raise DataError("preprocessing: tiles are for detectors, a classifier sees whole images; omit the tiling")
        if self.colour != "RGB":
            raise DataError(f"preprocessing: channel order {self.colour!r} is not supported; use RGB")

    def resized_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width after the resize: torchvision's formula (``GeneralizedRCNNTransform``), exactly.

        The scale is a float64 and the product is truncated, as in torchvision; a side never becomes 0. With tiles it is
        the size of the image that they are cut from.

        Raises:
            DataError: an image would be enlarged to more than ``MAX_ENLARGED`` pixels for its tiles.
        """
        if self.tiling is not None:
            return self._tiled_hw(size_hw, self.min_size / self.tiling.size)
        if self.stretch:
            return self.min_size, self.min_size
        scale = self.min_size / min(size_hw)
        if self.max_size:
            scale = min(scale, self.max_size / max(size_hw))
        height, width = (max(1, int(side * scale)) for side in size_hw)
        if self.crop:  # rounding must not make a side shorter than the crop
            height, width = max(height, self.crop), max(width, self.crop)
        return height, width

    def _tiled_hw(self, size_hw: tuple[int, int], scale: float) -> tuple[int, int]:
        height, width = (max(1, round(side * scale)) for side in size_hw)
        if scale > 1 and height * width > MAX_ENLARGED:
            raise DataError(
                f"an image of {size_hw[1]} x {size_hw[0]} pixels would be enlarged to {width} x {height}, because its "
                f"tiles are resized to {self.min_size} px; use larger tiles (--tile), or --image-size for smaller input"
            )
        return height, width

    def geometry(self, original_hw: tuple[int, int], orientation: int = 1) -> Geometry:
        """The :class:`Geometry` of an upright image of ``original_hw``; with tiles, of all of the image that they are
        cut from."""
        resized = self.resized_hw(original_hw)
        if not self.crop:
            return Geometry(original_hw, resized, orientation)
        corner = ((resized[0] - self.crop) // 2, (resized[1] - self.crop) // 2)
        return Geometry(original_hw, resized, orientation, corner, (self.crop, self.crop))

    def views(self, original_hw: tuple[int, int], orientation: int = 1) -> list[Geometry]:
        """What the network sees of an image: its tiles, row by row, and last the whole image if it has several tiles
        and ``tiling.whole_image`` is set. Without tiles the whole image only."""
        whole = self.geometry(original_hw, orientation)
        if self.tiling is None:
            return [whole]
        (height, width), side, overlap = whole.resized_hw, self.min_size, self.tiling.overlap
        if self.stretch and min(height, width) < side:  # its network takes squares only
            return [replace(self, tiling=None).geometry(original_hw, orientation)]
        crop_hw = min(side, height), min(side, width)
        tiles = [
            replace(whole, crop_yx=(top, left), crop_hw=crop_hw)
            for top in starts(height, side, overlap)
            for left in starts(width, side, overlap)
        ]
        if len(tiles) > 1 and self.tiling.whole_image:
            tiles.append(replace(self, tiling=None).geometry(original_hw, orientation))
        return tiles

    @staticmethod
    def apply(image: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
        """Resize (bilinear, uint8) and crop an upright uint8 [H, W, 3] image to the network input.

        ``image`` may have been decoded smaller than ``geometry.original_hw``; the result is uint8 of
        ``geometry.network_hw``. Training, evaluation, prediction and serving all use this function. The views of an
        image with tiles are made from the resized image, the result for :meth:`geometry`.
        """
        height, width = geometry.resized_hw
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        (top, left), (crop_h, crop_w) = geometry.crop_yx, geometry.network_hw
        return np.ascontiguousarray(image[top : top + crop_h, left : left + crop_w])

    def lines(self) -> list[str]:
        """The tiling and the value range for the terminal, in a line each; none without them."""
        lines = [] if self.tiling is None else [self.tiling.line()]
        if self.value_range is not None:
            low, high = self.value_range
            lines.append(
                f"pixel values {low:g}..{high:g} of images with more than 8 bits are scaled to 8 bits (--value-range)"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Preprocessing:
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        if fields.get("tiling") is not None:
            fields["tiling"] = Tiling(**fields["tiling"])
        return cls(**fields)
