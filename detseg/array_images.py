"""Read arrays in NumPy's ``.npy`` files, as images and as annotations: the header first, and never a pickle.

An image is [H, W], [H, W, C] or [C, H, W] with C = 1, 3 or 4 channels (grey, RGB, RGB and alpha, which is dropped). A
last axis of 1, 3 or 4 is the channels, so that [3, H, 3] is an image of 3 rows; else a first axis of 1, 3 or 4 is.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.errors import DataError
from detseg.image_container import MAX_BYTES, REPLACE
from detseg.media.files import open_file

ARRAY_SUFFIX = ".npy"

TARGETS = ("boxes", "landmarks", "label", "labels", "masks")
"""Annotations beside an image ``x``: ``x.boxes.npy``, ..."""

FORMAT = "NPY"
MAGIC = b"\x93NUMPY"

_MAX_HEADER = 10_000  # bytes; those of numpy.save have 128
_CHANNELS = (1, 3, 4)
_MAX_DIGITS = 20  # of a side; with more, the array is larger than any file
# Not with numpy.lib.format: it evaluates the header as Python source, with errors and warnings of many kinds.
_DESCR = re.compile(r"'descr':\s*'([<>|=]?)([a-zA-Z])(\d{0,9})'")
_ORDER = re.compile(r"'fortran_order':\s*(True|False)")
_SHAPE = re.compile(r"'shape':\s*\(([\dL, ]*)\)")
_KINDS = "biufUS"


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of a ``.npy`` file states, checked against the size of the file.

    Attributes:
        dtype: booleans, integers, floating-point numbers or text.
        shape: of the array.
        is_fortran: whether the first axis is contiguous.
        offset: of the values in the file.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    offset: int

    def values(self, data: bytes) -> npt.NDArray[Any]:
        """The array in the content of a whole file."""
        flat = np.frombuffer(data, self.dtype, math.prod(self.shape), self.offset)
        array = flat.reshape(self.shape, order="F" if self.is_fortran else "C")
        return array.astype(self.dtype.newbyteorder("="), copy=False)


def is_target(name: str) -> bool:
    """Whether a file is an annotation beside an image, by its name."""
    return name.lower().endswith(tuple(f".{target}{ARRAY_SUFFIX}" for target in TARGETS))


def read_array_header(file: BinaryIO, name: str) -> ArrayHeader:
    """Read the header of a ``.npy`` file; no value is read.

    Raises:
        DataError: not such a file, larger than ``MAX_BYTES``, with pickled or structured values, or with more values
            than the file has.
    """
    size = file.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        raise DataError(f"{name}: {size >> 20} MiB; arrays of at most {MAX_BYTES >> 20} MiB are read: divide it")
    file.seek(0)
    head = file.read(12)
    if not head.startswith(MAGIC) or len(head) < 12:
        raise DataError(f"{name}: not an array of NumPy ({ARRAY_SUFFIX}); write it with numpy.save")
    start = 10 if head[6] == 1 else 12
    length = int.from_bytes(head[8:start], "little")
    if head[6] not in (1, 2, 3) or length > _MAX_HEADER:
        raise DataError(f"{name}: a corrupt {ARRAY_SUFFIX} file, or of a later version; write it again with numpy.save")
    file.seek(start)
    text = file.read(length).decode("latin-1")
    descr, order, shape = (pattern.search(text) for pattern in (_DESCR, _ORDER, _SHAPE))
    if descr is not None and descr[2] == "O":
        raise DataError(
            f"{name}: an array of Python objects, which is not read, because unpickling can run any code; save arrays "
            "of numbers (rows of different lengths as one file for each image)"
        )
    if descr is None or order is None or shape is None or descr[2] not in _KINDS:
        raise DataError(f"{name}: neither numbers nor text in its header; save an array of a plain type")
    try:
        dtype = np.dtype("".join(descr.groups()))
    except (TypeError, ValueError):
        raise DataError(f"{name}: the type {''.join(descr.groups())!r} is not known; {REPLACE}") from None
    sides = tuple(int(side[:_MAX_DIGITS]) for part in shape[1].split(",") if (side := part.strip(" L")))
    expected = start + length + math.prod(sides) * dtype.itemsize
    if expected > size:
        raise DataError(
            f"{name}: corrupt or truncated {FORMAT} file: shape {list(sides)} of {dtype} needs {expected} bytes, the "
            f"file has {size}; {REPLACE}"
        )
    if dtype.itemsize == 0 or len(sides) > 8:
        raise DataError(f"{name}: shape {list(sides)} of {dtype} has no values that can be read; {REPLACE}")
    return ArrayHeader(dtype, sides, order[1] == "True", start + length)


def read_array(path: Path, name: str) -> npt.NDArray[Any]:
    """Read the array in a file, in the byte order of this machine. Errors are those of :func:`read_array_header`."""
    with open_file(path) as file:
        header = read_array_header(file, name)
        file.seek(0)
        return header.values(file.read())


def read_array_shape(path: Path, name: str) -> tuple[int, ...]:
    """The shape of the array in a file. Errors are those of :func:`read_array_header`."""
    with open_file(path) as file:
        return read_array_header(file, name).shape


class ArrayImage(Image.Image):
    """The image in a ``.npy`` file, of which only the header is parsed; ``load`` is not supported, use its methods.

    Attributes:
        is_deep: whether its values have more than 8 bits.
    """

    format = FORMAT

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__()
        self._file, self._name, self._header = file, name, read_array_header(file, name)
        shape, self._first = self._header.shape, False
        if len(shape) == 3:
            self._first = shape[2] not in _CHANNELS
            shape = shape[1:] if self._first else shape[:2]
        channels = self._header.shape[0 if self._first else 2] if len(self._header.shape) == 3 else 1
        kind = self._header.dtype.kind
        if len(shape) != 2 or channels not in _CHANNELS or kind not in "biuf":
            raise DataError(
                f"{name}: an array {self._header.dtype} {list(self._header.shape)} is no image; images are numbers "
                "[height, width], or [height, width, channels] or [channels, height, width] with 1, 3 or 4 channels"
            )
        self._size = shape[1], shape[0]
        self._mode = "L" if channels == 1 else "RGB"
        self.is_deep = kind in "iuf" and self._header.dtype != np.uint8

    def values(self) -> npt.NDArray[Any]:
        """The stored values, [H, W] or [H, W, 3]; booleans are 0 and 255."""
        self._file.seek(0)
        array = self._header.values(self._file.read())
        if array.ndim == 3:
            array = np.moveaxis(array, 0, 2) if self._first else array
            array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
        return array * np.uint8(255) if array.dtype == np.bool_ else array

    def rgb(self) -> npt.NDArray[np.uint8]:
        """uint8 [H, W, 3]: grey is repeated; values of 0 to 65535 are reduced to their high byte.

        Raises:
            DataError: floating-point values, or other integers.
        """
        values = self.values()
        if self.is_deep and values.dtype.kind == "f":
            raise DataError(
                f"{self._name}: floating-point values in a {FORMAT} file cannot be converted to 8 bits; {_GIVE}"
            )
        if self.is_deep and (int(values.min()) < 0 or int(values.max()) > 65535):
            raise DataError(f"{self._name}: values {values.min()}..{values.max()} do not fit 16 bits; {_GIVE}")
        pixels = (values.astype(np.uint16) >> 8).astype(np.uint8) if self.is_deep else values
        return np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels)


_GIVE = "give the range of the values: --value-range [LOW,HIGH], or value_range=(LOW, HIGH) in Python"
