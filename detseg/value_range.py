"""Decide one value range for all images of a data set that have more than 8 bits per channel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.media.files import open_file
from detseg.pixel_values import FULL_16_BITS, Range, kind
from detseg.runtime.reporter import progress

SAMPLED_IMAGES = 64
SAMPLED_VALUES = 20_000
"""Values of each sampled image for the percentiles; minimum and maximum are those of all its values."""
PERCENTILES = (0.1, 99.9)
OUTLIERS = 0.25
"""The percentiles are used if they span less than this share of minimum to maximum: a few values, such as dead pixels,
would take most of the 256 grey levels."""
STATED_FILL, USUAL_FILL = 0.25, 0.5
"""Share of a range stated in the files, and of a usual one (10, 12, 14, 16 bits), that the values must fill."""
THREADS = 4

Path_ = str | os.PathLike[str]
_NEVER_DEEP = (b"\xff\xd8\xff", b"BM", b"RIFF")  # JPEG, BMP, WEBP
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ValueRange:
    """The value range of the images of a data set, and how it was decided.

    Attributes:
        low, high: values that become 0 and 255.
        lowest, highest: values of the sampled images.
        kinds: types of their values, such as "16-bit".
        source: where the range is from; "" for one that was passed.
        deep, shallow: number of images with more than 8 bits per channel, and with 8 bits, which are not scaled.
    """

    low: float
    high: float
    lowest: float
    highest: float
    kinds: str
    source: str
    deep: int
    shallow: int

    @property
    def range(self) -> Range:
        """(low, high), as ``create_model`` and ``Preprocessing`` accept it."""
        return self.low, self.high

    def line(self) -> str:
        """The range and the reason for it, in one line."""
        if not self.source:
            scaled = f"values {self.low:g}..{self.high:g} of {self.kinds} images are scaled to 8 bits (--value-range)"
            return f"{scaled}; their values are {self.lowest:g}..{self.highest:g}"
        return (
            f"values {self.low:g}..{self.high:g} of {self.kinds} images are scaled to 8 bits: {self.reason()}; "
            "--value-range to change"
        )

    def reason(self) -> str:
        """Where the range is from, with the values of the images."""
        text = self.source
        if (self.lowest, self.highest) != self.range:
            text += f", whose values are {self.lowest:g}..{self.highest:g}"
        return text + f"; {self.shallow} other images have 8 bits and are not scaled" * bool(self.shallow)


@dataclass(frozen=True)
class _Sample:
    lowest: float
    highest: float
    values: npt.NDArray[np.float64]
    stated: Range | None
    kind: str


def find_value_range(
    paths: Sequence[Path_], *, images: str = "images", override: Range | None = None
) -> ValueRange | None:
    """The value range of some images, usually the training images; None if none has more than 8 bits per channel.

    It is the range that all sampled files state in their tags; without one, or if the values fill less than a quarter
    of it, that of 10, 12, 14 or 16 bits if they fill more than half of it; else from the lowest to the highest value
    (without outliers, see :data:`OUTLIERS`). The result is a function of the files. Constant images and files that
    cannot be read are ignored.

    Args:
        paths: image files.
        images: what they are, in the description of the source.
        override: use this range, and describe the images.
    """
    paths = list(dict.fromkeys(map(Path, paths)))
    with ThreadPoolExecutor(2 * THREADS) as pool:
        depths = list(pool.map(has_deep_values, paths))
    deep = [path for path, is_deep in zip(paths, depths, strict=True) if is_deep]
    if not deep:
        return None
    rows = np.unique(np.linspace(0, len(deep) - 1, SAMPLED_IMAGES).round().astype(int)).tolist()
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(_sample, (deep[row] for row in rows))
        readable = [sample for sample in progress(results, "value range", total=len(rows)) if sample is not None]
    samples = [sample for sample in readable if sample.lowest < sample.highest] or readable
    if not samples:
        return None
    decided, source = (override, "") if override else _decide(samples, images)
    return ValueRange(
        *decided,
        lowest=min(sample.lowest for sample in samples),
        highest=max(sample.highest for sample in samples),
        kinds=", ".join(sorted({sample.kind for sample in samples})),
        source=source,
        deep=len(deep),
        shallow=depths.count(False),
    )


def has_deep_values(path: Path_) -> bool | None:
    """Whether an image file has more than 8 bits per channel; None for a file that cannot be read.

    Of most files only the first bytes are read.
    """
    try:
        with open_file(path) as file:
            head = file.read(26)
        if head.startswith(_NEVER_DEEP) or (head.startswith(_PNG) and head[24:25] != b"\x10"):
            return False
        return EncodedImage(path).is_deep
    except (DataError, OSError):
        return None


def _sample(path: Path) -> _Sample | None:
    try:
        encoded = EncodedImage(path)
        values = encoded.values()
    except (DataError, OSError):
        return None  # reported when it is used
    flat: npt.NDArray[Any] = values.reshape(-1)
    finite = flat[np.isfinite(flat)] if np.issubdtype(flat.dtype, np.floating) else flat
    if not len(finite):
        return None
    chosen = finite[:: max(1, len(finite) // SAMPLED_VALUES)].astype(np.float64)
    return _Sample(float(finite.min()), float(finite.max()), chosen, encoded.stated_range(), kind(values))


def _decide(samples: Sequence[_Sample], images: str) -> tuple[Range, str]:
    lowest, highest = min(sample.lowest for sample in samples), max(sample.highest for sample in samples)
    low, high = lowest, highest
    inner = np.percentile(np.concatenate([sample.values for sample in samples]), PERCENTILES).tolist()
    outliers = 0 < inner[1] - inner[0] < OUTLIERS * (highest - lowest)
    if outliers:
        low, high = inner
    stated = [sample.stated for sample in samples if sample.stated is not None]
    if len(stated) == len(samples):
        start, stop = min(first for first, _ in stated), max(last for _, last in stated)
        if start <= lowest and highest <= stop and high - low >= STATED_FILL * (stop - start):
            return (start, stop), f"range stated in the {images}"
    usual = _usual_range(low, high, [sample.kind for sample in samples])
    if usual is not None and high - low > USUAL_FILL * (usual[1] - usual[0]):
        return usual, f"range of the {images}"
    if outliers:
        return (low, high), f"percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} of the {images}"
    return (low, high if low < high else low + 1), f"range of the {images}"


def _usual_range(low: float, high: float, kinds: Sequence[str]) -> Range | None:
    """The smallest usual range that includes low..high; None for none."""
    if low < 0:
        return None
    if any(name.startswith("float") for name in kinds):
        return (0.0, 1.0) if high <= 1 else None
    tops = [float(2**bits - 1) for bits in (8, 10, 12, 14)] + [FULL_16_BITS[1]]
    return next(((0.0, top) for top in tops if high <= top), None)
