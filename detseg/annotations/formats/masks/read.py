"""Read mask folders: images, and label images whose pixel values are instances or classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.masks.classes import classes_of_names, classes_of_values
from detseg.annotations.formats.masks.decode import MaskDecoder
from detseg.annotations.formats.masks.layout import MaskFolders, files_below, match
from detseg.annotations.formats.masks.meaning import Meaning, decide, sample_masks
from detseg.annotations.formats.masks.names import ValueNames, read_value_names
from detseg.annotations.formats.masks.objects import MaskedImage, MaskObject, read_objects
from detseg.annotations.formats.masks.segmentation import is_segmentation, objects_folder, segmentation_lists
from detseg.annotations.formats.masks.values import IGNORE
from detseg.annotations.groups import first_names
from detseg.annotations.image_files import read_headers
from detseg.annotations.listing import is_image, key_of, list_files, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.class_names import names_with_commas, unknown_class
from detseg.classes import ClassMap
from detseg.errors import DataError


def read_masks(
    images_dir: str | os.PathLike[str],
    masks_dir: str | os.PathLike[str],
    *,
    values: str | None = None,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    follow_links: bool = False,
) -> AnnotationTable:
    """Read one image folder and one mask folder; see :func:`read_mask_folders`.

    Folders named train, val or test inside both are used as the split of the source.
    """
    images, masks = (Path(os.path.abspath(folder)) for folder in (images_dir, masks_dir))  # noqa: PTH100
    root = Path(os.path.commonpath([images, masks]))
    folders = MaskFolders(*("" if path == root else path.relative_to(root).as_posix() for path in (images, masks)))
    return read_mask_folders(
        root, [folders], values=values, classes=classes, bad_instances=bad_instances, follow_links=follow_links
    )


def read_mask_folders(
    root: str | os.PathLike[str],
    folders: Sequence[MaskFolders],
    *,
    values: str | None = None,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    follow_links: bool = False,
) -> AnnotationTable:
    """Read images and the label images that match them by name.

    Args:
        root: the data folder.
        folders: image and mask folders, below ``root``.
        values: the meaning of pixel values. "instance": each value except 0 is one object, all of one class. "class":
            value v is class v, 0 is background and 255 ignored; each connected region is an object. "binary": one
            object per file, all pixels that are not 0; an image has any number of files. "regions": as binary, but
            each connected region is an object. None decides from the pixels of each value in up to 32 masks, with a
            note. If masks of objects are beside those of classes (SegmentationObject and SegmentationClass), None and
            "instance" read both.
        classes: for "class", names of the values 1, 2, ..., or some of the names in a file beside the masks; otherwise
            the only class, or, if file names contain classes (``img_7_square_2.png``), the selected classes, in this
            order.
        bad_instances: "drop" or "error", see ``TableBuilder``.
        follow_links: follow links that point outside ``root``.

    Raises:
        DataError: images without mask (with "binary" and "regions" they are negatives, in SegmentationClass they are
            left out), a mask and its image with different sizes, a
            value without a name, files that cannot be read, or links that point outside ``root``.
        OSError: a folder or file cannot be opened.
    """
    root = Path(root)
    notes = RepairLog()
    read = tuple(f"{folder}/" if folder else "" for pair in folders for folder in (pair.images, pair.masks))
    files = list_files(root, follow_links, lambda file: is_image(file) and file.startswith(read))
    images = [image for pair in folders for image in _images(root, files, pair, values, notes)]
    if not any(image.masks for image in images):
        raise DataError(
            f"{root}: no mask matches an image by name; the mask of img_7.jpg is called img_7.png or img_7_mask.png"
        )
    names = read_value_names(root, [pair.masks for pair in folders])
    decoder = MaskDecoder(root, names)
    meaning = _meaning(decoder, images, values, names, classes, notes)
    _check_complete(root, images, meaning.values, notes)
    headers = read_headers(root, [image.file for image in images], root.name)
    contents = read_objects(decoder, images, headers, meaning, notes)
    objects = [content.objects for content in contents]
    class_map, label_of = _classes(root, decoder, images, objects, meaning, names, classes)
    builder = TableBuilder(class_map, root, source=str(root), bad_instances=bad_instances)
    builder.notes.merge(notes)
    for image, header, content in zip(images, headers, contents, strict=True):
        stored = content.stored_frame
        builder.add_image(
            image.file, header.size_hw, orientation=header.orientation, stored_frame=stored, split=image.split
        )
        builder.lose(sum(classes is None or key == "" or key in label_of for key in content.lost))
        for item in content.objects:
            label = label_of.get(item.key)
            if label is None:
                builder.notes.add("object of an unselected class left out", item.where)
            else:
                builder.add_instance(None, label, segmentation=item.rle, where=item.where)
    return builder.build()


def _images(
    root: Path, files: Sequence[str], pair: MaskFolders, values: str | None, notes: RepairLog
) -> list[MaskedImage]:
    """All images of one pair of folders with the masks that match them by name."""
    same = pair.images == pair.masks
    images = files_below(files, pair.images, "" if same else pair.masks)
    masks = files_below(files, pair.masks, "" if same else pair.images)
    matches = match(images, masks, same_folder=same)
    if matches.same_name:
        raise DataError(
            f"{root / pair.images}: {len(matches.same_name)} images differ from another image only in their suffix: "
            f"{first_names(matches.same_name)}; a mask could belong to either: rename one"
        )
    for mask in matches.respelled:
        notes.add("mask of an image whose name has other upper and lower case or blanks", mask)
    for mask in matches.respelled:
        notes.add("mask of an image whose name has other upper and lower case or blanks", mask)
    for mask in matches.lossy:
        notes.add("mask that is not PNG, TIFF or BMP left out", PurePosixPath(pair.masks, mask).as_posix())
    for mask in matches.without_image:
        notes.add("mask without image left out", PurePosixPath(pair.masks, mask).as_posix())
    if matches.common_suffix:
        suffix = matches.common_suffix
        notes.add(
            "ending of all mask names not used as a class", f"{suffix}; if it is the class, pass --classes {suffix}"
        )
    of_objects = objects_folder(files, pair) if values in (None, "instance") else ""
    object_mask_of = {key_of(file): f"{of_objects}/{file}" for file in files_below(files, of_objects) if of_objects}
    lists = segmentation_lists(root, files) if is_segmentation(pair) else {}
    images_with_masks: list[MaskedImage] = []
    for image in sorted([*matches.masks, *matches.without_mask]):
        masks_of_image = matches.masks.get(image, [])
        object_mask = object_mask_of.get(key_of(masks_of_image[0].file), "") if masks_of_image else ""
        if is_segmentation(pair) and (not masks_of_image or (of_objects and not object_mask)):
            notes.add("image without a mask left out", PurePosixPath(pair.images, image).as_posix())
            continue
        folder_split = split_of(image.split("/")[0]) if "/" in image else ""
        images_with_masks.append(
            MaskedImage(
                PurePosixPath(pair.images, image).as_posix(),
                pair.split or lists.get(key_of(image), "") or folder_split,
                [(PurePosixPath(pair.masks, mask.file).as_posix(), mask.class_name) for mask in masks_of_image],
                any(mask.one_of_many for mask in masks_of_image),
                object_mask,
            )
        )
    return images_with_masks


def _meaning(
    decoder: MaskDecoder,
    images: Sequence[MaskedImage],
    values: str | None,
    names: ValueNames | None,
    classes: Sequence[str] | None,
    notes: RepairLog,
) -> Meaning:
    """What the values mean; see :func:`decide`."""
    masks = [mask for image in images for mask, _ in image.masks]
    several = any(len(image.masks) > 1 or image.one_of_many for image in images)
    if names is not None and classes is not None and not set(classes) <= set(names.names):
        if names_with_commas(",".join(classes), names.names):
            start = f"{names.file}: no class {', '.join(map(repr, classes))}; available classes: "
            raise unknown_class(start, classes, names.classes)
        names = None  # the user names the values 1, 2, ...
    if not any(image.objects for image in images):
        return decide(sample_masks(decoder, masks), values, several, names, masks, notes)
    meaning = decide(sample_masks(decoder, masks), "class", several, names, masks, notes)
    count = sum(bool(image.objects) for image in images)
    notes.add(
        "objects read from SegmentationObject, their classes from SegmentationClass",
        f"{count} masks; to read each connected region of a class as an object, pass --mask-values class",
    )
    return meaning


def _check_complete(root: Path, images: Sequence[MaskedImage], values: str, notes: RepairLog) -> None:
    """DataError unless every image has exactly one mask, or with "binary" and "regions" any number of masks."""
    without = [image.file for image in images if not image.masks]
    several = [image.file for image in images if len(image.masks) > 1]
    if values in ("binary", "regions"):
        for file in without:
            notes.add("image without mask file used as an image without objects", file)
    elif without:
        raise DataError(
            f"{root}: {len(without)} of {len(images)} images have no mask: {first_names(without)}; "
            "add one (all 0 for an image without objects), or remove the image"
        )
    elif several:
        raise DataError(
            f"{root}: {len(several)} images have more than one mask: {first_names(several)}; mask values {values} "
            "require one mask per image: remove the others, or pass --mask-values binary"
        )


def _classes(
    root: Path,
    decoder: MaskDecoder,
    images: Sequence[MaskedImage],
    objects: Sequence[Sequence[MaskObject]],
    meaning: Meaning,
    names: ValueNames | None,
    classes: Sequence[str] | None,
) -> tuple[ClassMap, dict[int | str, int]]:
    """The class map, and the label of each key of an object; keys of unselected classes are missing."""
    where: dict[int | str, str] = {}
    for item in (item for objects_of_image in objects for item in objects_of_image):
        where.setdefault(item.key, item.where)
    if meaning.values == "class":
        if not where:
            _check_ignored(root, decoder, images)
        used = {key: place for key, place in where.items() if isinstance(key, int)}
        class_map, label_of_value = classes_of_values(root, used, classes, meaning.names)
        return class_map, dict(label_of_value.items())
    class_map = classes_of_names(root, {str(key) for key in where}, classes, names.classes if names is not None else ())
    return class_map, {"": 1, **{name: label for label, name in enumerate(class_map.names, start=1)}}


def _check_ignored(root: Path, decoder: MaskDecoder, images: Sequence[MaskedImage]) -> None:
    """DataError if masks without objects contain the ignored value: these are black-and-white masks, not classes."""
    for mask in (mask for image in images for mask, _ in image.masks):
        if (decoder.decode(mask) == IGNORE).any():
            raise DataError(
                f"{root}: no mask contains an object, only {IGNORE} ({mask}), which is ignored if values are classes; "
                "write 1 instead, or pass --mask-values binary (each file is one object) or regions (each connected "
                "region is one object)"
            )
