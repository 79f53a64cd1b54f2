"""Decode label images, whose values are numbers and not colours, and the alpha of masks: by the rules of ``images``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.errors import DataError
from detseg.images import EncodedImage, Source
from detseg.pixel_values import load
from detseg.pixels import pillow_rgb

_LABEL_FORMATS = ("PNG", "BMP", "TIFF", "PPM")  # lossless ones: JPEG changes label values
_PNG_BITS = 24  # offset in a PNG file of the number of bits per channel


def decode_label_png(source: Source, *, name: str = "") -> npt.NDArray[np.integer]:
    """Decode a label image (mask PNG): palette indices, grey levels, 16-bit or 1-bit values as they are stored.

    A colour image is accepted if its channels are equal (grey saved as RGB); its alpha and any EXIF data are ignored.

    Args:
        source: path, or the content, of a PNG (or BMP, TIFF, PPM).
        name: the image's name in error messages; the path by default.

    Returns:
        uint8, uint16 or int32 [H, W], contiguous.

    Raises:
        DataError: not a readable image, corrupt, lossy (JPEG, WEBP), or a colour image.
        OSError: the file cannot be opened.
    """
    name, data, image = _opened(source, name)
    if image.format not in _LABEL_FORMATS:
        raise DataError(f"{name}: a {image.format} cannot store labels, its compression changes values; save it as PNG")
    values = load(image, name)
    if image.mode in ("1", "P", "L", "I", "I;16", "I;16B", "I;16L"):
        if image.mode == "L" and image.format == "PNG":
            values = values // {2: 85, 4: 17}.get(data[_PNG_BITS], 1)  # Pillow scales 2 and 4 bits to 0..255
        return np.ascontiguousarray(values.astype({"1": np.uint8, "I": np.int32}.get(image.mode, values.dtype)))
    if image.format == "PNG" and data[_PNG_BITS] == 16:  # Pillow returns the high bytes only
        raise DataError(
            f"{name}: a 16-bit label image must be grey, but this one is {image.mode}; save it without colours"
        )
    if image.mode in ("LA", "PA"):
        return np.ascontiguousarray(values[..., 0])
    if image.mode in ("RGB", "RGBA") and (values[..., :1] == values[..., 1:3]).all():
        return np.ascontiguousarray(values[..., 0])
    raise DataError(
        f"{name}: a label image must have one number per pixel, but this one has colours (mode {image.mode}); "
        "save palette indices or grey levels"
    )


def decode_label_colours(source: Source, *, name: str = "") -> npt.NDArray[np.uint8]:
    """Decode a label image (mask PNG) to its stored colours: a palette is applied, grey is repeated, alpha is dropped.

    Arguments and errors are those of :func:`decode_label_png`.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    name, _, image = _opened(source, name)
    if image.format not in _LABEL_FORMATS:
        raise DataError(f"{name}: a {image.format} cannot store labels, its compression changes values; save it as PNG")
    return pillow_rgb(image, name)


def decode_alpha(source: Source, *, name: str = "") -> npt.NDArray[np.uint8] | None:
    """Decode the alpha channel of an image: uint8 [H, W], contiguous; None if it has none, or a transparent colour.

    Arguments and errors are those of :func:`decode_label_png`.
    """
    name, _, image = _opened(source, name)
    return np.ascontiguousarray(load(image, name)[..., -1], np.uint8) if image.mode in ("RGBA", "LA") else None


def _opened(source: Source, name: str) -> tuple[str, bytes, Image.Image]:
    """The name in messages, the content and the image, of which only the header is parsed."""
    encoded = EncodedImage(source, name=name)
    return encoded.name, encoded.data, encoded.image
