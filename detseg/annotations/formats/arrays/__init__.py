"""NumPy arrays in nested folders."""

from __future__ import annotations

from detseg.annotations.formats.arrays.read import find_arrays, read_arrays
from detseg.annotations.formats.format import Format, Layout, ReadOptions, refused_images
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError


def _read(layout: Layout, options: ReadOptions) -> AnnotationTable:
    """See :func:`read_arrays`."""
    if options.images is not None:
        raise DataError(refused_images(layout))
    return read_arrays(
        layout.root,
        classes=options.classes,
        bad_instances=options.bad_instances,
        follow_links=options.follow_links,
        missing_images=options.missing_images,
    )


FORMAT = Format(
    name="arrays",
    find=find_arrays,
    read=_read,
    write=None,
    suffixes=(),
    help="<image>.npy with <image>.boxes.npy, .landmarks.npy, .label.npy or .masks.npy beside it",
)
