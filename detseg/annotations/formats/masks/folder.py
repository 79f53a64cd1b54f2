"""Find the image and mask folders of a data folder, and read them as one table."""

from __future__ import annotations

from pathlib import Path

from detseg.annotations.formats.format import Detected, Layout, ReadOptions, refused_images
from detseg.annotations.formats.masks.layout import MaskFolders, find_mask_folders
from detseg.annotations.formats.masks.read import read_mask_folders, read_masks
from detseg.annotations.formats.masks.segmentation import objects_folder
from detseg.annotations.listing import MASK_FOLDERS, folder_word
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.media.files import is_dir, iterdir


def find_masks(root: Path, files: list[str]) -> Detected | None:
    """Pairs of folders (images, masks, split) as ``parts``."""
    folders = find_mask_folders(files)
    pairs = ", ".join(_described(pair, objects_folder(files, pair)) for pair in folders)
    parts = tuple((pair.images, pair.masks, pair.split) for pair in folders)
    return Detected(f"mask folder: {pairs}", parts) if folders else None


def _described(pair: MaskFolders, objects: str) -> str:
    beside = f" and {objects}" if objects else ""
    return f"images in {pair.images or '.'}, masks in {pair.masks or '.'}{beside}"


def read_masks_of(layout: Layout, options: ReadOptions) -> AnnotationTable:
    """Read the pairs of folders; with another image folder, the masks in ``layout.root`` or in its subfolder with a
    usual name."""
    if options.images is None:
        folders = [MaskFolders(*part) for part in layout.parts]
        return read_mask_folders(
            layout.root,
            folders,
            values=options.mask_values,
            classes=options.classes,
            bad_instances=options.bad_instances,
            follow_links=options.follow_links,
        )
    if layout.parts:
        raise DataError(refused_images(layout))
    if not is_dir(layout.root):
        raise DataError(
            f"{layout.root}: a file; the masks of --images {options.images} must be in a folder, pass that folder"
        )
    by_name = {folder_word(folder.name): folder for folder in iterdir(layout.root) if is_dir(folder)}
    masks = next((by_name[name] for name in MASK_FOLDERS if name in by_name), layout.root)
    return read_masks(
        options.images,
        masks,
        values=options.mask_values,
        classes=options.classes,
        bad_instances=options.bad_instances,
        follow_links=options.follow_links,
    )
