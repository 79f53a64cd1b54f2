"""Which folder holds the images, which the masks, and which mask belongs to which image: by names only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from detseg.annotations.listing import IMAGE_FOLDERS, is_image, key_of, split_of, subfolders

MASK_FOLDERS = (
    "pedmasks", "masks", "mask", "label", "labels", "segmentationclass", "segmentationobject", "segmentations",
    "segmentation", "seg", "annotations", "annotation", "gt",
)  # fmt: skip
"""Usual names of the folder with the masks, in lower case; the first one that matches images is taken."""

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".pbm")
"""Formats that keep label values; JPEG does not."""

ENDINGS = ("mask", "masks", "label", "labels", "instances", "instance", "seg", "segmentation", "gt")
"""What may follow the image's name in the name of its only mask: ``img_7_mask.png``."""

_ENDING = re.compile(rf"[_\-. ](?:{'|'.join(ENDINGS)})$", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:(?P<name>.*?)[_\- ]?)??(?P<number>\d+)$")


@dataclass(frozen=True)
class MaskFolders:
    """One folder of images and the folder of their masks, relative to the data folder ("" is that folder itself)."""

    images: str
    masks: str
    split: str = ""


@dataclass(frozen=True)
class MaskFile:
    """A mask of an image.

    Attributes:
        file: path relative to the mask folder.
        class_name: the class in a name such as ``img_7_square_2.png``; "" if the name says none.
        one_of_many: the name has more than the image's: the file may hold one object of several.
    """

    file: str
    class_name: str = ""
    one_of_many: bool = False


@dataclass
class Matches:
    """Masks by image, and what is left over; all paths relative to their own folder."""

    masks: dict[str, list[MaskFile]] = field(default_factory=dict)
    without_mask: list[str] = field(default_factory=list)
    without_image: list[str] = field(default_factory=list)
    same_name: list[str] = field(default_factory=list)
    lossy: list[str] = field(default_factory=list)


def find_mask_folders(files: Sequence[str], masks_name: str | None = None) -> list[MaskFolders]:
    """The folders of images and masks among the ``files`` of a data folder (relative paths); empty if there are none.

    Args:
        files: as ``list_files`` gives them.
        masks_name: the name that the mask folder must have, in lower case; None for any of ``MASK_FOLDERS``.
    """
    here = _pair(list(files), masks_name)
    if here is not None:
        return [MaskFolders(*here)]
    found = []
    for folder, inner in sorted(subfolders(list(files)).items()):
        pair = _pair(inner, masks_name) if folder and split_of(folder) else None
        if pair is not None:
            images, masks = (str(PurePosixPath(folder, name)) for name in pair)
            found.append(MaskFolders(images, masks, split_of(folder)))
    return found


def files_below(files: Sequence[str], folder: str, other: str = "") -> list[str]:
    """The files in ``folder`` ("" is all), relative to it, without those in ``other`` if that lies inside."""
    prefix = f"{folder}/" if folder else ""
    inside = [file for file in files if file.startswith(prefix)]
    if other.startswith(prefix) and other != folder:
        inside = [file for file in inside if not file.startswith(f"{other}/")]
    return [file.removeprefix(prefix) for file in inside]


def match(images: Sequence[str], masks: Sequence[str], *, same_folder: bool = False) -> Matches:
    """Find the masks of each image by name: the same, with an ending (``_mask``), or with a class and a number.

    Args:
        images, masks: file names relative to their folders; what is neither is passed over.
        same_folder: both lists are the same, images are the files that are no mask of another.
    """
    result = Matches()
    image_of: dict[str, str] = {}
    for image in filter(is_image, images):
        if key_of(image) in image_of and not same_folder:
            result.same_name.append(image)
        image_of.setdefault(key_of(image), image)
    for mask in masks:
        if not mask.lower().endswith(MASK_SUFFIXES):
            if is_image(mask) and not same_folder:
                result.lossy.append(mask)
            continue
        key, found = _owner(key_of(mask), mask, image_of, own=not same_folder)
        if found is not None:
            result.masks.setdefault(image_of[key], []).append(found)
        elif not same_folder:
            result.without_image.append(mask)
    taken = {found.file for of_image in result.masks.values() for found in of_image} if same_folder else set()
    result.without_mask = [image for image in image_of.values() if image not in result.masks and image not in taken]
    return result


def _owner(key: str, mask: str, image_of: dict[str, str], own: bool) -> tuple[str, MaskFile | None]:
    """The key of the image that a mask belongs to, and what its name says."""
    if own and key in image_of:
        return key, MaskFile(mask)
    bare = _ENDING.sub("", key)
    if bare != key and bare in image_of:
        return bare, MaskFile(mask)
    if not own:
        return "", None
    for end in range(len(key) - 1, 0, -1):  # the longest image name that the mask's name begins with
        if key[end] in "_- ." and key[:end] in image_of:
            rest = key[end + 1 :]
            numbered = _NUMBERED.match(rest)
            name = (numbered["name"] or "") if numbered else rest
            return key[:end], MaskFile(mask, "" if name.lower() in ENDINGS else name, one_of_many=True)
    return "", None


def _pair(files: list[str], masks_name: str | None) -> tuple[str, str] | None:
    """(image folder, mask folder) directly below one folder, if its masks match images."""
    folders = subfolders(files)
    names = {name.lower(): name for name in folders if name}
    for wanted in (masks_name,) if masks_name else MASK_FOLDERS:
        if wanted not in names:
            continue
        masks = names[wanted]
        usual = [names[name] for name in IMAGE_FOLDERS if name in names and name != wanted]
        others = [name for name in folders if name and name != masks and name.lower() not in MASK_FOLDERS]
        others = [name for name in others if any(map(is_image, folders[name]))]
        candidates = [*usual, *([""] if any(map(is_image, folders.get("", []))) else []), *others]
        for images in candidates:
            inside = folders.get(images, [])
            if match(inside, folders[masks]).masks:
                return images, masks
    loose = folders.get("", [])
    if not masks_name and match(loose, loose, same_folder=True).masks:
        return "", ""
    return None
