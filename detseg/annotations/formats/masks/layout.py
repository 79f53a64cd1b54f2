"""Find image and mask folders, and match masks to images, by names only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from detseg.annotations.image_names import folded
from detseg.annotations.listing import IMAGE_FOLDERS, MASK_FOLDERS, folder_word, is_image, key_of, split_of, subfolders

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".pbm")
"""Lossless formats, which preserve label values; JPEG does not, and is used only if no mask has one of these."""

ENDINGS = ("mask", "masks", "label", "labels", "instances", "instance", "seg", "segmentation", "gt")
"""Endings that may follow the image name in the name of its only mask: ``img_7_mask.png``."""

_ENDING = re.compile(rf"[_\-. ](?:{'|'.join(ENDINGS)})$", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:(?P<name>.*?)[_\- ]?)??(?P<number>\d+)$")


@dataclass(frozen=True)
class MaskFolders:
    """An image folder and its mask folder, relative to the data folder ("" is the data folder itself)."""

    images: str
    masks: str
    split: str = ""


@dataclass(frozen=True)
class MaskFile:
    """A mask of an image.

    Attributes:
        file: path relative to the mask folder.
        class_name: the class in a name such as ``img_7_square_2.png``; "" if the name contains none.
        one_of_many: the name is longer than the image name: the file may contain one object of several.
    """

    file: str
    class_name: str = ""
    one_of_many: bool = False


@dataclass
class Matches:
    """Masks by image, and unmatched files; all paths relative to the image or mask folder.

    Attributes:
        respelled: masks matched under another spelling.
        common_suffix: what the names of all masks end with, which therefore is no class.
    """

    masks: dict[str, list[MaskFile]] = field(default_factory=dict)
    without_mask: list[str] = field(default_factory=list)
    without_image: list[str] = field(default_factory=list)
    same_name: list[str] = field(default_factory=list)
    lossy: list[str] = field(default_factory=list)
    respelled: list[str] = field(default_factory=list)
    common_suffix: str = ""


def find_mask_folders(files: Sequence[str], masks_name: str | None = None) -> list[MaskFolders]:
    """Find the image and mask folders among the ``files`` of a data folder (relative paths); empty if there are none.

    Args:
        files: as returned by ``list_files``.
        masks_name: the required name of the mask folder, in lower case; None for any of ``MASK_FOLDERS``.
    """
    top_level = _find_pair(list(files), masks_name)
    if top_level is not None:
        return [MaskFolders(*top_level)]
    mask_folders = []
    for folder, inner in sorted(subfolders(list(files)).items()):
        pair = _find_pair(inner, masks_name) if folder and split_of(folder) else None
        if pair is not None:
            images, masks = (str(PurePosixPath(folder, name)) for name in pair)
            mask_folders.append(MaskFolders(images, masks, split_of(folder)))
    return mask_folders


def files_below(files: Sequence[str], folder: str, excluded: str = "") -> list[str]:
    """The files in ``folder`` ("" is all), relative to it, without those in the subfolder ``excluded``."""
    prefix = f"{folder}/" if folder else ""
    inside = [file for file in files if file.startswith(prefix)]
    if excluded.startswith(prefix) and excluded != folder:
        inside = [file for file in inside if not file.startswith(f"{excluded}/")]
    return [file.removeprefix(prefix) for file in inside]


def match(images: Sequence[str], masks: Sequence[str], *, same_folder: bool = False, use_lossy: bool = True) -> Matches:
    """Find the masks of each image by name: the same, with an ending (``_mask``), or with a class and a number.

    Args:
        images, masks: file names relative to their folders; other files are ignored.
        same_folder: both lists are the same; images are the files that are not a mask of another file.
        use_lossy: match JPEG masks if no lossless mask matches.
    """
    result = Matches()
    image_of: dict[str, str] = {}
    for image in filter(is_image, images):
        if key_of(image) in image_of and not same_folder:
            result.same_name.append(image)
        image_of.setdefault(key_of(image), image)
    lossless = [mask for mask in masks if mask.lower().endswith(MASK_SUFFIXES)]
    lossy = [mask for mask in masks if is_image(mask) and not mask.lower().endswith(MASK_SUFFIXES)]
    _add_matches(result, lossless, image_of, same_folder)
    if not result.masks and use_lossy:
        _add_matches(result, lossy, image_of, same_folder)
    elif not same_folder:
        result.lossy = lossy
    if not same_folder:
        _match_respelled(result, image_of)
    _drop_common_suffix(result)
    used = {mask.file for masks_of_image in result.masks.values() for mask in masks_of_image} if same_folder else set()
    result.without_mask = [image for image in image_of.values() if image not in result.masks and image not in used]
    return result


def _add_matches(result: Matches, masks: Sequence[str], image_of: dict[str, str], same_folder: bool) -> None:
    for mask in masks:
        key, mask_file = _match_mask(key_of(mask), mask, image_of, allow_same_name=not same_folder)
        if mask_file is not None:
            result.masks.setdefault(image_of[key], []).append(mask_file)
        elif not same_folder:
            result.without_image.append(mask)


def _drop_common_suffix(result: Matches) -> None:
    """A suffix that all masks have, one mask per image (``X_P.png`` in CamVid), is no class."""
    masks = [mask for masks_of_image in result.masks.values() for mask in masks_of_image]
    suffixes = {mask.class_name for mask in masks}
    if len(suffixes) != 1 or "" in suffixes or not 1 < len(masks) == len(result.masks):
        return
    (suffix,) = suffixes
    if all(key_of(mask.file).endswith(suffix) for mask in masks):  # no number after it
        result.common_suffix = suffix
        result.masks = {image: [MaskFile(mask.file)] for image, (mask,) in result.masks.items()}


def _match_respelled(result: Matches, image_of: dict[str, str]) -> None:
    """Match the remaining masks without regard to case and blanks, where that is unambiguous."""
    remaining: dict[str, list[str]] = {}
    for key, image in image_of.items():
        if image not in result.masks:
            remaining.setdefault(folded(key), []).append(image)
    single = {key: images[0] for key, images in remaining.items() if len(images) == 1}
    by_image: dict[str, list[MaskFile]] = {}
    for mask in result.without_image:
        key, mask_file = _match_mask(folded(key_of(mask)), mask, single, allow_same_name=True)
        if mask_file is not None and not mask_file.one_of_many:
            by_image.setdefault(single[key], []).append(mask_file)
    result.masks.update({image: masks for image, masks in by_image.items() if len(masks) == 1})
    result.respelled = [masks[0].file for masks in by_image.values() if len(masks) == 1]
    result.without_image = [mask for mask in result.without_image if mask not in result.respelled]


def _match_mask(key: str, mask: str, image_of: dict[str, str], allow_same_name: bool) -> tuple[str, MaskFile | None]:
    """The key of the image that a mask belongs to, and the mask with the class in its name."""
    if allow_same_name and key in image_of:
        return key, MaskFile(mask)
    without_ending = _ENDING.sub("", key)
    if without_ending != key and without_ending in image_of:
        return without_ending, MaskFile(mask)
    if not allow_same_name:
        return "", None
    for end in range(len(key) - 1, 0, -1):  # the longest image name that is a prefix of the mask name
        if key[end] in "_- ." and key[:end] in image_of:
            rest = key[end + 1 :]
            numbered = _NUMBERED.match(rest)
            name = (numbered["name"] or "") if numbered else rest
            return key[:end], MaskFile(mask, "" if name.lower() in ENDINGS else name, one_of_many=True)
    return "", None


def _find_pair(files: list[str], masks_name: str | None) -> tuple[str, str] | None:
    """(image folder, mask folder) directly below one folder, if its masks match images."""
    folders = subfolders(files)
    names = {folder_word(name): name for name in folders if name}
    for mask_folder in (masks_name,) if masks_name else MASK_FOLDERS:
        if mask_folder not in names:
            continue
        masks = names[mask_folder]
        usual = [names[name] for name in IMAGE_FOLDERS if name in names and name != mask_folder]
        others = [name for name in folders if name and name != masks and folder_word(name) not in MASK_FOLDERS]
        others = [name for name in others if any(map(is_image, folders[name]))]
        candidates = [*usual, *([""] if any(map(is_image, folders.get("", []))) else []), *others]
        for images in candidates:
            inside = folders.get(images, [])
            # JPEGs of the same names in two folders of other names may just as well be two classes of images.
            if match(inside, folders[masks], use_lossy=images == "" or images in usual).masks:
                return images, masks
    top_files = folders.get("", [])
    if not masks_name and match(top_files, top_files, same_folder=True).masks:
        return "", ""
    return None
