"""Find image files by the names in annotation files, including names written on other machines and by other tools."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from detseg.annotations.image_files import first_few, unreadable
from detseg.annotations.image_names import (
    MOVED,
    SPELLING,
    folded,
    has_parts,
    is_below,
    normalized,
    path_parts,
    spellings,
)
from detseg.annotations.listing import (
    IMAGE_FOLDERS,
    Listing,
    folder_word,
    is_image,
    is_inside,
    links_hint,
    list_folder,
    split_of,
)
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.media.files import has_container_suffix, is_dir, is_file, iterdir, listdir
from detseg.media.video_files import frame_number, frame_path, is_video, split_frame
from detseg.runtime.missing_path import missing_path

MISSING = "image without a file left out"
"""The note about an image that is missing, with ``missing_images="drop"``."""


@dataclass(frozen=True)
class ImageReference:
    """The image that an annotation refers to.

    Attributes:
        name: as written in the file: a file name, a path below some folder, an absolute path of another machine, or a
            web address.
        folder: folder of the annotation file, relative to the data folder: searched first.
        subset: a word such as "train"; of several images with the same name, the one in a folder with this name is
            used; "" for none.
    """

    name: str
    folder: str = ""
    subset: str = ""


class ImageLookup:
    """The images below a folder, searched by name.

    A name is only compared with the files that exist in the folder, so no file outside it is opened, whatever the
    annotation file contains; links out of the folder only with ``follow_links``. A name is tried as written, then by
    the end of its path, then in its other ``spellings``, then without regard to case and blanks. Unicode normal forms
    and backslashes are treated as equal, and so is the suffix for names without an image suffix. A name that is nowhere
    in the folder is searched in the archives of the folder.
    """

    def __init__(self, root: Path, follow_links: bool = False, files: Sequence[str] | None = None) -> None:
        """``files``: the images below ``root``, if they are already listed."""
        self._accepts = is_image
        self.root = root
        self.follow_links = follow_links
        self._files = files
        self._real = os.path.realpath(root)
        self._entries: dict[str, dict[str, str]] = {}

    @cached_property
    def _listing(self) -> Listing:
        if self._files is not None:
            return Listing(list(self._files), {})
        return list_folder(self.root, self.follow_links)

    @cached_property
    def files(self) -> list[str]:
        """All images below the folder, relative to it."""
        return [file for file in self._listing.files if self._accepts(file)]

    @cached_property
    def videos(self) -> ImageLookup:
        """The videos below the folder."""
        lookup = ImageLookup(self.root, self.follow_links, self._listing.files)
        lookup._accepts = is_video
        return lookup

    @cached_property
    def _in_archives(self) -> ImageLookup | None:
        """The images in archives of the folder that the list of files does not look into; None if there are none."""
        if self._files is not None or not any(map(has_container_suffix, self._listing.files)):
            return None
        known = {*self._listing.files}
        inside = [file for file in list_folder(self.root, self.follow_links, archives=True).files if file not in known]
        return ImageLookup(self.root, self.follow_links, list(filter(is_image, inside)))

    @property
    def links(self) -> dict[str, str]:
        """Links out of the folder that were not followed; see :class:`Listing`."""
        return self._listing.links

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        """Files by their name, by their name without suffix, and by both ``folded``."""
        index: dict[str, list[str]] = {}
        for file in self.files:
            name = normalized(file).rpartition("/")[2]
            stem = name.rpartition(".")[0]
            for key in {name, stem, folded(name), folded(stem)}:
                index.setdefault(key, []).append(file)
        return index

    @cached_property
    def _exact(self) -> dict[str, str]:
        return {normalized(file): file for file in self.files}

    def path_as_written(self, name: str) -> str | None:
        """The path of ``name`` as written, relative to the folder, without a list of all files; None if there is no
        such file below the folder."""
        if not is_below(name):
            return None
        name = name.replace("\\", "/")
        path = os.path.join(self.root, name)  # noqa: PTH118  (pathlib is four times slower on 100,000 names)
        if not is_file(path):
            parent, _, last = name.rpartition("/")
            if parent not in self._entries:
                try:
                    entries = listdir(self.root / parent)
                except OSError:
                    entries = []
                self._entries[parent] = {normalized(entry): entry for entry in entries}
            entry = self._entries[parent].get(normalized(last))
            if entry is None:
                return None
            name = f"{parent}/{entry}" if parent else entry
            path = os.path.join(self.root, name)  # noqa: PTH118
            if not is_file(path):
                return None
        return name if self.follow_links or is_inside(os.path.realpath(path), self._real) else None

    def find(self, reference: ImageReference) -> tuple[list[str], str]:
        """The files that match best (one, none, or several if ambiguous), relative to the folder; and in which way the
        name differs, "" if it does not. A frame of a video, ``clip.mp4/frame_000123.png``, is found by its video."""
        matches, reason = self._find(reference)
        if not matches and self._in_archives is not None:
            return self._in_archives.find(reference)
        return matches, reason

    def _find(self, reference: ImageReference) -> tuple[list[str], str]:
        if split_frame(reference.name) is not None and (frames := self._find_frames(reference))[0]:
            return frames
        for start in _start_folders(reference):
            path = f"{start}/{reference.name}" if start else reference.name
            exact = self._exact.get(normalized(os.path.normpath(path)))
            if exact is not None:
                return [exact], ""
        for same in (normalized, folded):
            for spelling, reason in spellings(reference.name):
                parts, cut = path_parts(same(spelling))
                by_stem = bool(parts) and not self._accepts(parts[-1])
                candidates = self._index.get(parts[-1], []) if parts else []
                for dropped in range(len(parts)):  # the longest common end
                    matches = [file for file in candidates if has_parts(same(file), by_stem, parts[dropped:])]
                    if matches:
                        other = SPELLING if same is folded else reason
                        return _preferred(matches, reference), other or (MOVED if cut or dropped else "")
        return self._find_frames(reference)

    def _find_frames(self, reference: ImageReference) -> tuple[list[str], str]:
        """The frames that ``clip.mp4/frame_000123.png`` or ``clip/frame_000123.png`` may be."""
        video, _, name = reference.name.replace("\\", "/").rpartition("/")
        number = frame_number(name)
        if number is None or not video or not self.videos.files:
            return [], ""
        videos, reason = self.videos.find(replace(reference, name=video))
        return [frame_path(file, number) for file in videos], reason


def look_up_images(
    references: Sequence[ImageReference],
    base: Path,
    images: str | os.PathLike[str] | None,
    source: str,
    notes: RepairLog,
    follow_links: bool = False,
    missing_images: str = "error",
    note_unannotated: bool = True,
) -> tuple[Path, list[str]]:
    """The image folder, and the path of each image in it with forward slashes; "" for one that is left out.

    A name that differs from the file (see :class:`ImageLookup`) is noted, and so are images without annotation in the
    folders of the others.

    Args:
        references: the images that the annotations refer to.
        base: the data folder: searched first, then image folders next to it.
        images: the folder to search instead.
        source: name of the data set in messages.
        notes: notes are added here.
        follow_links: search behind links that point outside the folder.
        missing_images: what to do with images that have no file: "error", or "drop" to leave them out with a note.
        note_unannotated: false if the format does not list all images of a folder.

    Raises:
        DataError: images that are missing (with "drop": more than half of them), or that match several files: their
            number and the first five.
        FileNotFoundError: ``images`` is not a folder.
    """
    if images is not None and not is_dir(images):
        raise missing_path(images, "image folder")
    lookup, links = _select_lookup(references, base, None if images is None else Path(images), follow_links, source)
    lookup = readable_lookup(lookup, missing_images, notes)
    files, missing, ambiguous = [], [], []
    for reference in references:
        matches, reason = lookup.find(reference)
        files.append((matches[0] if len(matches) == 1 else "", reason))
        if len(matches) > 1:
            ambiguous.append(f"{reference.name} ({first_few(matches)})")
        elif not matches:
            missing.append(reference.name or "(no name)")
    if missing:
        text = (
            f"{source}: {len(missing)} of {len(references)} images are not in {lookup.root}: {first_few(missing)}"
            f"{links_hint(links)}; add the files, or remove their annotations"
        )
        check_missing(len(missing), len(references), text, images, missing_images)
        for name in missing:
            notes.add(MISSING, name)
    if ambiguous:
        raise DataError(
            f"{source}: {len(ambiguous)} of {len(references)} images match more than one file: "
            f"{first_few(ambiguous)}; write the path below the image folder{other_folder(images)}"
        )
    _note_differences(references, files, source, notes)
    if note_unannotated:
        _note_unannotated(lookup, [file for file, _ in files if file], notes)
    return lookup.root, [file for file, _ in files]


def readable_lookup(lookup: ImageLookup, missing_images: str, notes: RepairLog) -> ImageLookup:
    """``lookup``; if missing images are to be dropped without the files that are not images, each with a note."""
    errors = unreadable(lookup.root, lookup.files) if missing_images == "drop" else {}
    if not errors:
        return lookup
    for error in errors.values():
        notes.add("file that is not an image left out", error)
    return ImageLookup(lookup.root, lookup.follow_links, [file for file in lookup.files if file not in errors])


def check_missing(
    missing: int, number: int, text: str, images: str | os.PathLike[str] | None, missing_images: str
) -> None:
    """Accept missing images only if the user asked for it, and if at least half of the images are there.

    Args:
        missing, number: of images.
        text: the beginning of the message, which ends with what else could be done ("add the files, or ...").
        images: the image folder that the user passed.
        missing_images: "error" or "drop".

    Raises:
        DataError: with the remedies.
    """
    many = 2 * missing > number
    if missing_images == "drop" and not many:
        return
    if missing_images == "drop":
        refused = "more than half, which --missing-images drop does not accept: probably the folder is wrong"
        raise DataError(f"{text}{other_folder(images)} ({refused})")
    drop = "" if many else ", or pass --missing-images drop to leave these images out"
    raise DataError(f"{text}{other_folder(images)}{drop}")


def folder_with_all(
    names: Sequence[str], folders: Sequence[Path], inside: Sequence[Path], follow_links: bool, unique: bool = False
) -> tuple[Path, list[str]] | None:
    """The first of ``folders`` (or the only one, if ``unique``) that has all images at the paths as written, and these
    paths; None if there is none. The folders are not listed, which is fast for many images.

    Args:
        names: as written in the annotation file.
        folders: the folders, in order.
        inside: without ``follow_links`` only folders that really are below one of these are searched.
        follow_links: accept links to other folders.
        unique: None if several folders have all images.
    """
    allowed = [os.path.realpath(folder) for folder in inside]
    chosen: tuple[Path, list[str]] | None = None
    for folder in folders:
        real = os.path.realpath(folder)
        if not follow_links and not any(is_inside(real, parent) for parent in allowed):
            continue
        lookup, paths = ImageLookup(folder, follow_links), []
        for name in names:
            path = lookup.path_as_written(name)
            if path is None:
                break
            paths.append(path)
        if len(paths) == len(names):
            if not unique:
                return folder, paths
            if chosen is not None:
                return None
            chosen = folder, paths
    return chosen


def other_folder(images: str | os.PathLike[str] | None) -> str:
    """The remedy to pass an image folder, or that another one is needed if ``images`` was already passed."""
    if images is None:
        return ", or pass the folder that contains the images with --images"
    return f", because --images {images} was searched with all folders in it"


def _note_differences(
    references: Sequence[ImageReference], files: Sequence[tuple[str, str]], source: str, notes: RepairLog
) -> None:
    """Note every image whose name differs; DataError if its file is already that of another name."""
    exact = {file: reference.name for reference, (file, reason) in zip(references, files, strict=True) if not reason}
    for reference, (file, reason) in zip(references, files, strict=True):
        if file and reason and exact.setdefault(file, reference.name) != reference.name:
            raise DataError(
                f"{source}: {reference.name} is not among the images, and the most similar file {file} is that of "
                f"{exact[file]}; add the image, or correct one of the names"
            )
        if reason:
            notes.add(reason, f"{reference.name} as {file}")


def _select_lookup(
    references: Sequence[ImageReference], base: Path, images: Path | None, follow_links: bool, source: str
) -> tuple[ImageLookup, dict[str, str]]:
    """The lookup in the passed folder or in ``base`` if it has any of the images, else in the image folder or split
    folder next to it that has most of them; and the links that were not followed.

    Raises:
        DataError: several folders next to ``base`` have equally many images.
    """
    lookup = ImageLookup(base if images is None else images, follow_links)
    if images is not None or not references or any(lookup.find(reference)[0] for reference in references):
        return lookup, lookup.links
    links = dict(lookup.links)
    parent = base.resolve().parent
    others: list[tuple[int, ImageLookup]] = []
    for folder in sorted(iterdir(parent)) if is_dir(parent) else []:
        if folder_word(folder.name) not in IMAGE_FOLDERS and not split_of(folder.name):
            continue
        real = os.path.realpath(folder)
        if not follow_links and not is_inside(real, os.path.realpath(parent)):
            links[str(folder)] = real
        elif is_dir(folder) and not is_inside(real, os.path.realpath(base)):
            other = ImageLookup(folder, follow_links)
            others.append((sum(bool(other.find(reference)[0]) for reference in references), other))
    most = max((count for count, _ in others), default=0)
    best = [other for count, other in others if count == most > 0]
    if len(best) > 1:
        raise DataError(
            f"{source}: its images are in several folders ({first_few([str(other.root) for other in best])}); pass "
            "their folder with --images"
        )
    return (best[0], best[0].links) if best else (lookup, links)


def _note_unannotated(lookup: ImageLookup, paths: Sequence[str], notes: RepairLog) -> None:
    used = set(paths)
    folders = {file.rpartition("/")[0] for file in used}
    for file in lookup.files:
        if file not in used and file.rpartition("/")[0] in folders:
            notes.add("image without annotation left out", file)


def _preferred(files: list[str], reference: ImageReference) -> list[str]:
    """Of several files: those in a folder of the subset; else the one next to the annotations, or in images/."""
    if len(files) == 1:
        return files
    subset = reference.subset.lower()
    inside = [
        file for file in files if any(subset in (folder, split_of(folder)) for folder in file.lower().split("/")[:-1])
    ]
    if subset:
        return inside if len(inside) == 1 else files
    nearby = [file for file in files if normalized(file).rpartition("/")[0] in _start_folders(reference)]
    return nearby[:1] or files


def _start_folders(reference: ImageReference) -> list[str]:
    """Folders that a path may be relative to, the most likely first."""
    folder = f"{normalized(reference.folder)}/" if reference.folder else ""
    subset = reference.subset
    folders = [f"{folder}images/{subset}", f"{folder}{subset}"] if subset else []
    return [*folders, folder.rstrip("/"), f"{folder}images", "", "images"]
