"""Find the images of a COCO file in the folders in which they usually are, else one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detseg.annotations.image_files import unreadable
from detseg.annotations.image_lookup import ImageReference, folder_with_all, look_up_images
from detseg.annotations.listing import is_inside
from detseg.annotations.repair_log import RepairLog
from detseg.media.files import is_dir

_PREFIXES = ("instances_", "person_keypoints_", "annotations_", "image_info_", "labels_", "stuff_")
_SPLITS = ("train", "val", "test", "valid")


def find_image_files(
    names: Sequence[str],
    annotations: Path,
    images: str | os.PathLike[str] | None,
    split: str,
    source: str,
    data_folder: Path,
    notes: RepairLog,
    follow_links: bool = False,
    missing_images: str = "error",
) -> tuple[Path, list[str]]:
    """The image folder and the path of each image in it: one of the usual folders if it has all names as written, else
    see ``look_up_images``.

    Args:
        names: file names as written in the annotation file.
        annotations: the annotation file.
        images: the image folder, or its parent; None to search the usual folders.
        split: name of the split, a hint for the name of the folder.
        source: name of the annotation file in messages.
        data_folder: the folder that contains the file and the images.
        notes: names that differ from those of the files are noted here.
        follow_links: follow links that point outside the image folder.
        missing_images: "error" or "drop", see ``look_up_images``.

    Raises:
        DataError: images are missing or ambiguous.
        FileNotFoundError: ``images`` is not a folder.
    """
    if images is not None and not is_dir(images):
        raise FileNotFoundError(f"{images}: no such image folder")
    if not names:
        return annotations.parent, []
    likely, possible = usual_folders(annotations, None if images is None else Path(images), split)
    inside = [data_folder, annotations.parent.resolve().parent] if images is None else [Path(images)]
    if images is None and not follow_links:
        likely, possible = ([path for path in paths if not _leaves(path, data_folder)] for paths in (likely, possible))
    located = folder_with_all(names, likely, inside, follow_links)
    located = located or folder_with_all(names, possible, inside, follow_links, unique=True)
    if located is not None and not (missing_images == "drop" and unreadable(*located)):
        return located
    is_below = annotations.parent.is_relative_to(data_folder)
    folder = annotations.parent.relative_to(data_folder).as_posix() if is_below else ""
    references = [ImageReference(name, "" if folder == "." else folder, split) for name in names]
    return look_up_images(
        references, data_folder, images, source, notes, follow_links, missing_images, note_unannotated=False
    )


def _leaves(folder: Path, data_folder: Path) -> bool:
    """Whether a folder of :func:`usual_folders` in the data folder is a link, or behind one, that points outside it."""
    real = os.path.realpath(data_folder)
    return folder.is_relative_to(real) and not is_inside(os.path.realpath(folder), real)


def usual_folders(annotations: Path, images: Path | None, split: str) -> tuple[list[Path], list[Path]]:
    """Existing folders: likely ones by the location and name of the file (or by ``split``), and other possible ones.

    Args:
        annotations: the COCO file: its folder and the one above are searched.
        images: the folder to search instead.
        split: name of the split, a hint for the name of the folder.
    """
    base = annotations.parent.resolve()
    starts = [base, base.parent] if images is None else [images]
    bare = annotations.stem
    for prefix in _PREFIXES:
        bare = bare.removeprefix(prefix)
    words = [word for word in (split, annotations.stem, bare, bare.rstrip("0123456789")) if word]
    words += [f"{word}2017" for word in words if word in _SPLITS]

    def below(word: str) -> list[Path]:
        return [start / inner / word for start in starts for inner in ("", "images")]

    likely = [starts[0], starts[0] / "images", *(path for word in words for path in below(word)), *below("")]
    possible = [path for word in _SPLITS for path in below(word)]
    likely, possible = ([path for path in dict.fromkeys(paths) if is_dir(path)] for paths in (likely, possible))
    return likely, [path for path in possible if path not in likely]
