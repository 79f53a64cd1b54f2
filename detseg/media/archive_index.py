"""Index an archive: the names of its files and folders, and where the bytes of each file are.

Names and sizes come from an untrusted file. What makes a listing ambiguous or without bounds (names that lead out of
the archive, two files of one name, millions of folders) refuses the archive; what concerns one file (a password, a
link out of the archive, a device) refuses this file when it is opened.
"""

from __future__ import annotations

import re
from array import array
from typing import Any, NamedTuple

from detseg.errors import DataError
from detseg.short_text import printable_name

MAX_FILES = 5_000_000
"""Most files and folders of an archive; the largest public sets of images have two million."""

MAX_DEPTH = 100
"""Levels of folders in an archive."""

MAX_UNPACKED = 2**32
"""Bytes of all unpacked files (4 GiB) above which ``MAX_RATIO`` is checked."""

MAX_RATIO = 100
"""Largest unpacked size of a whole archive as a multiple of its own; deflate reaches 1032, images hardly 1.1."""

MAX_FILE_UNPACKED = 2**26
"""Bytes of one unpacked file (64 MiB) above which ``MAX_FILE_RATIO`` is checked."""

MAX_FILE_RATIO = 200
"""Largest unpacked size of one large file as a multiple of its packed size; annotations reach 20."""

MAX_LINKS = 40
"""Links that one link may lead through, as in Linux."""

NO_CHECKSUM = -1

_DRIVE = re.compile("[A-Za-z]:")

Tree = dict[str, Any]
"""Name -> row of a file, or the tree of a folder."""


class Member(NamedTuple):
    """Where a file of an archive is.

    Attributes:
        start: offset of its bytes, or in a zip of its local header.
        packed, size: bytes in the archive, and unpacked.
        checksum: CRC-32 of the unpacked bytes, or ``NO_CHECKSUM``.
        deflated: whether it is compressed.
    """

    start: int
    packed: int
    size: int
    checksum: int
    deflated: bool


class ArchiveIndex:
    """The files and folders of an archive. Columns and not objects, so that workers share them without copying.

    Args:
        path: the archive, for messages.
        length: its bytes (of a compressed tar: unpacked).
        again: the command that makes it again, for messages.

    Attributes:
        tree: the top folder.
        target_of: links to files, and the names of these.
        ends: of a zip, sorted: where files begin, and where the last one must end.
    """

    def __init__(self, path: str, length: int, again: str) -> None:
        self.path = path
        self.length = length
        self.again = again
        self.ends = array("q")
        self._starts = array("q")
        self.tree: Tree = {}
        self.target_of: dict[str, str] = {}
        self._packed, self._sizes, self._checksums = array("q"), array("q"), array("q")
        self._deflated = array("b")
        self._problems: dict[int, str] = {}
        self._links: dict[str, tuple[str, bool]] = {}
        self._folders: dict[str, Tree] = {}  # by the beginning of names that was checked before
        self._total = self._nodes = 0

    def add_file(self, name: str, member: Member, problem: str = "") -> None:
        """Add a file.

        Args:
            name: as in the archive.
            member: where it is.
            problem: why it cannot be read, with the remedy; "" if it can.

        Raises:
            DataError: a name that is not allowed or occurs twice; bytes outside of the archive; too many files, too
                large when unpacked.
        """
        if member.start < 0 or member.packed < 0 or member.start + member.packed > self.length:
            raise self.error(
                f"{printable_name(name)} has {member.packed} bytes at {member.start}, but the archive ends at "
                f"{self.length}: it is truncated or damaged",
                "download or copy it again",
            )
        self._total += member.size
        if self._total > MAX_UNPACKED and self._total > MAX_RATIO * self.length:
            raise self.error(
                f"unpacked, its files have more than {self._total >> 20} MiB, {self._total // max(self.length, 1)} "
                f"times its own {self.length} bytes (at most {MAX_RATIO} times is read): a decompression bomb",
                "unpack it, if you trust it, and pass the folder",
            )
        head, _, last = name.rpartition("/")
        folder = self._folders.get(head)
        if folder is None or last in ("", ".", "..") or "\0" in last:
            self._insert(self._parts(name), self._append(member, problem), name)
        else:
            self._put(folder, last, self._append(member, problem), name)

    def add_folder(self, name: str) -> None:
        """Add a folder, which may be empty; errors are those of :meth:`add_file`."""
        parts = self._parts(name)
        if parts:
            self._insert([*parts, ""], -1, name)

    def add_link(self, name: str, target: str, *, from_top: bool) -> None:
        """Add a link, which :meth:`finish` resolves.

        Args:
            name: as in the archive.
            target: the path it leads to.
            from_top: it is relative to the top folder of the archive (a hard link), not to that of the link.
        """
        parts = self._parts(name)
        self._links["/".join(parts)] = (target, from_top)
        self._insert(parts, self._append(Member(0, 0, 0, NO_CHECKSUM, False), "not resolved"), name)

    def finish(self) -> None:
        """Resolve the links to files in the archive; others are files that cannot be opened."""
        for name, target in [(name, self._target(name)) for name in self._links]:
            row = self.find(target)
            *folders, last = name.split("/")
            folder = self.tree
            for part in folders:
                folder = folder[part]
            if not isinstance(row, int) or target == name:
                shown = printable_name(self._links[name][0])
                self._problems[folder[last]] = (
                    f"a link to {shown}, which is not a file in the archive; store the file itself (tar -h, zip "
                    "without -y)"
                )
            else:
                folder[last] = row
                self.target_of[name] = target
        self._links, self._folders = {}, {}

    def find(self, name: str) -> int | Tree | None:
        """The row of a file, the tree of a folder ("" is the top), or None."""
        node: int | Tree = self.tree
        for part in name.split("/"):
            if part in ("", "."):
                continue
            if isinstance(node, int):
                return None
            child = node.get(part)
            if child is None:
                return None
            node = child
        return node

    def member(self, row: int) -> Member:
        """Where the file of a row is."""
        return Member(
            self._starts[row], self._packed[row], self._sizes[row], self._checksums[row], bool(self._deflated[row])
        )

    def check(self, row: int, name: str) -> None:
        """Check that a file may be read.

        Raises:
            DataError: its problem, or a file that is much larger when unpacked.
        """
        if row in self._problems:
            raise DataError(f"{self.path}/{name}: {self._problems[row]}")
        packed, size = self._packed[row], self._sizes[row]
        if size > MAX_FILE_UNPACKED and size > MAX_FILE_RATIO * packed:
            raise DataError(
                f"{self.path}/{name}: {packed} bytes that become {size} when unpacked (at most {MAX_FILE_RATIO} times "
                "as many are read): a decompression bomb; remove it from the archive"
            )

    def error(self, what: str, remedy: str = "") -> DataError:
        """The error for the whole archive; by default with the remedy to make it again."""
        return DataError(f"{self.path}: {what}; {remedy or f'make it again ({self.again})'}")

    def _append(self, member: Member, problem: str) -> int:
        row = len(self._starts)
        self._starts.append(member.start)
        self._packed.append(member.packed)
        self._sizes.append(member.size)
        self._checksums.append(member.checksum)
        self._deflated.append(member.deflated)
        if problem:
            self._problems[row] = problem
        return row

    def _parts(self, name: str) -> list[str]:
        """The folders and the name of a file; DataError if they may not be read or written as a path."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or _DRIVE.match(name) or "\0" in name:
            raise self.error(f"the name '{printable_name(name)}' in it leads out of the folder that it stands for")
        if len(parts) > MAX_DEPTH:
            raise self.error(f"its folders are nested deeper than {MAX_DEPTH} ({printable_name(name[:40])}...)")
        return parts

    def _insert(self, parts: list[str], row: int, name: str) -> None:
        """Put a file into the tree, or only its folders if it has no name."""
        if not parts:
            raise self.error("a file in it has no name")
        folder, last = self.tree, parts[-1]
        for part in parts[:-1]:
            inner = folder.get(part)
            if inner is None:
                inner = folder[part] = {}
                self._count()
            elif isinstance(inner, int):
                raise self.error(f"{printable_name(name)} is below {part!r}, which is a file")
            folder = inner
        if last:
            head, _, end = name.rpartition("/")
            if end == last:
                self._folders[head] = folder
            self._put(folder, last, row, name)

    def _put(self, folder: Tree, last: str, row: int, name: str) -> None:
        if last in folder:
            raise self.error(f"the name '{printable_name(name)}' occurs twice in it: which one counts is not known")
        folder[last] = row
        self._count()

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_FILES:
            raise self.error(f"it has more than {MAX_FILES} files and folders", "split it into several archives")

    def _target(self, link: str) -> str:
        """The name to which a link leads; the link itself if it leads out of the archive."""
        name = link
        for _ in range(MAX_LINKS):
            if name not in self._links:
                return name
            target, from_top = self._links[name]
            parts = [] if from_top else name.split("/")[:-1]
            if target.startswith("/"):
                return link
            for part in target.split("/"):
                if part == ".." and not parts:
                    return link
                if part == "..":
                    parts.pop()
                elif part not in ("", "."):
                    parts.append(part)
            name = "/".join(parts)
        return link
