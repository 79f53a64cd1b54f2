"""Decode the masks of a data set to values: label images, colours that a labelmap.txt lists, VOC's colours, JPEG."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.masks.layout import MASK_SUFFIXES
from detseg.annotations.formats.masks.names import ValueNames
from detseg.annotations.formats.masks.values import IGNORE
from detseg.annotations.formats.shared.value_counts import Labels
from detseg.errors import DataError
from detseg.images import ImageHeader, decode_image
from detseg.label_images import decode_label_colours, decode_label_png
from detseg.orientation import orient_image, upright_hw

_UNLISTED = 2**16 - 1
_VOC_BORDER = 224 << 16 | 224 << 8 | 192
_COLOUR_NOISE = 32  # grey levels by which the channels of a grey JPEG may differ


def is_lossy(mask: str) -> bool:
    return not mask.lower().endswith(MASK_SUFFIXES)


def voc_colours() -> dict[int, int]:
    """``red << 16 | green << 8 | blue -> value`` of Pascal VOC's palette: 1 is (128, 0, 0), 255 is (224, 224, 192)."""
    colours = {}
    for value in range(256):
        red = green = blue = 0
        for bit in range(8):
            digits = value >> 3 * bit
            red |= (digits & 1) << 7 - bit
            green |= (digits >> 1 & 1) << 7 - bit
            blue |= (digits >> 2 & 1) << 7 - bit
        colours[red << 16 | green << 8 | blue] = value
    return colours


class MaskDecoder:
    """Decodes masks below ``root``. Palette indices and grey levels are values as they are stored, unless all colours
    of the image are in the labelmap.txt of the data set."""

    def __init__(self, root: Path, names: ValueNames | None) -> None:
        self._root = root
        self._names = names
        colours = names.colours if names is not None else {}
        self._listed = _table({_VOC_BORDER: IGNORE, **colours}) if colours else None

    def decode(self, mask: str) -> Labels:
        """Values of a mask, uint8, uint16 or int32 [H, W], as they are stored."""
        path = self._root / mask
        if is_lossy(mask):
            return _decode_grey(path, mask)
        if self._listed is None:
            try:
                labels = decode_label_png(path, name=mask)
            except DataError as error:
                if "has colours" not in str(error):
                    raise
                return self._from_voc_colours(path, mask, error)
        else:
            packed = _packed(decode_label_colours(path, name=mask))
            values = self._listed[packed]
            if (values != _UNLISTED).all():
                return values.astype(np.uint8 if values.max() < 256 else np.uint16)
            try:
                labels = decode_label_png(path, name=mask)
            except DataError as error:
                if "has colours" not in str(error):
                    raise
                raise DataError(self._unlisted(packed[values == _UNLISTED], mask)) from None
        return _not_negative(labels, mask)

    def decode_objects(self, mask: str) -> Labels:
        """Numbers of the objects in a mask in which each object has its own value or colour; 0 is background."""
        path = self._root / mask
        try:
            return _not_negative(decode_label_png(path, name=mask), mask)
        except DataError as error:
            if "has colours" not in str(error):
                raise
        packed = _packed(decode_label_colours(path, name=mask))
        values = _voc_table()[packed]
        return packed if (values == _UNLISTED).any() else values

    def upright(self, labels: Labels, mask: str, image: str, header: ImageHeader) -> tuple[Labels, bool]:
        """The mask of the upright image, and whether it was rotated together with the image.

        Raises:
            DataError: the mask has another size than its image.
        """
        if labels.shape == header.size_hw:  # stored orientation, also if the upright size is the same
            return orient_image(labels, header.orientation), header.orientation != 1
        if labels.shape == upright_hw(header.size_hw, header.orientation):
            return labels, False
        height, width = header.size_hw
        raise DataError(
            f"{mask}: the mask is {labels.shape[1]} x {labels.shape[0]} pixels (width x height), its image {image} is "
            f"{width} x {height}; create the mask again in the size of the image"
        )

    def _from_voc_colours(self, path: Path, mask: str, error: DataError) -> Labels:
        """Values of a colour image with the colours of Pascal VOC only; otherwise the error of ``decode_label_png``."""
        values = _voc_table()[_packed(decode_label_colours(path, name=mask))]
        if (values == _UNLISTED).any():
            raise DataError(
                f"{error}, or list the colours in a labelmap.txt beside the masks, one line like cat:250,50,83:: per "
                "class"
            ) from None
        return values.astype(np.uint8)

    def _unlisted(self, packed: npt.NDArray[np.int32], mask: str) -> str:
        assert self._names is not None
        colours, counts = np.unique(packed, return_counts=True)
        most = int(colours[np.argmax(counts)])
        rgb = f"{most >> 16},{most >> 8 & 255},{most & 255}"
        return (
            f"{mask}: {packed.size} pixels have {len(colours)} colours that are not in {self._names.file}, most of "
            f"them {rgb}; add a line NAME:{rgb}:: to it, or save the mask without smoothing"
        )


def _decode_grey(path: Path, mask: str) -> Labels:
    colours = decode_image(path, upright=False, name=mask)
    if int(np.ptp(colours, axis=2).max()) > _COLOUR_NOISE:
        raise DataError(
            f"{mask}: a mask in a lossy format must be black and white, but this one has colours; save it as PNG"
        )
    return np.ascontiguousarray(colours[..., 1])


def _not_negative(labels: Labels, mask: str) -> Labels:
    if labels.min() < 0:
        raise DataError(f"{mask}: the value {labels.min()} is negative; label images contain only values from 0 up")
    return labels


def _packed(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _table(value_of: dict[int, int]) -> npt.NDArray[np.uint16]:
    """Values by colour, for all 2**24 colours (32 MiB); ``_UNLISTED`` for the others."""
    table = np.full(2**24, _UNLISTED, np.uint16)
    table[list(value_of)] = list(value_of.values())
    return table


@cache
def _voc_table() -> npt.NDArray[np.uint16]:
    return _table(voc_colours())
