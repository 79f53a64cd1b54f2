"""Folders of images and of label images."""

from __future__ import annotations

from detseg.annotations.formats.format import Format
from detseg.annotations.formats.masks.folder import find_masks, read_masks_of

FORMAT = Format(
    name="masks",
    find=find_masks,
    read=read_masks_of,
    write=None,
    suffixes=(),
    help="images/ with masks/ beside it (or images in the folder itself), PNG masks named like their image",
)
