"""Find class names that are probably mistakes: nearly equal ones, background, and classes that do not occur."""

from __future__ import annotations

import unicodedata

import numpy as np

from detseg.annotations.split import class_presence
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import MERGE_CLASSES, REMOVE_CLASS, Finding
from detseg.short_text import counted

NO_CLASS = frozenset(("background", "ignore", "ignored", "void", "unlabeled", "unlabelled"))
"""Names, without underscores and hyphens, of what is not an object: tools write them as the first class of a list."""

UNUSED, UNUSED_SHARE = 5, 0.25
"""A class list is of another, larger data set if more classes than this, and more than this share of them, do not occur
(COCO's 80 classes in 50 images): the table of classes shows it, and it is no mistake."""


def inspect_classes(table: AnnotationTable) -> list[Finding]:
    """Find class names that differ only in case, blanks or Unicode form, names that mean no class, and classes without
    instances (or images, for class folders and label columns).

    A class ``background`` of whole images is a class like others, and is not reported.
    """
    counts = _counts(table)
    equal, no_class = _nearly_equal(counts), [name for name in counts if _is_no_class(name, table)]
    reported = [*no_class, *(name for names in equal for name in names)]
    unused = [name for name, count in counts.items() if not count and name not in reported]
    return [
        *(_equal_finding(table, counts, names) for names in equal),
        *(_no_class_finding(table, counts, name) for name in no_class),
        *_unused_findings(table, counts, unused),
    ]


def _counts(table: AnnotationTable) -> dict[str, int]:
    """Class name -> number of instances, crowds included, or of images."""
    if table.has_class_index:
        numbers = class_presence(table)[:, 1:].sum(axis=0)
    else:
        numbers = np.bincount(table.label[table.instance_rows()], minlength=table.class_map.num_classes)[1:]
    return dict(zip(table.class_map.names, numbers.tolist(), strict=True))


def _nearly_equal(counts: dict[str, int]) -> list[list[str]]:
    """Groups of names that differ only in case, blanks or Unicode form."""
    names_of: dict[str, list[str]] = {}
    for name in counts:
        names_of.setdefault(_folded(name), []).append(name)
    return [names for names in names_of.values() if len(names) > 1]


def _equal_finding(table: AnnotationTable, counts: dict[str, int], names: list[str]) -> Finding:
    best = max(names, key=lambda name: (_is_plain(name), counts[name]))
    renamed = " ".join(f'--rename "{name}={best}"' for name in names if name != best)
    shown = ", ".join(f"{_visible(name)} ({_number(table, counts[name])})" for name in names)
    remedy = "correct them" if any("=" in name for name in names) else f"correct the names, or pass {renamed}"
    return Finding(
        "warning",
        "nearly equal class names",
        table.source,
        f"{shown} differ only in case, blanks or Unicode form, yet they are {len(names)} classes",
        f"if they are one, {remedy}",
        fix="" if table.label_fields or len(_folded(best)) == 1 else MERGE_CLASSES,  # letters: a and A may be two
        names=(best, *(name for name in names if name != best)),
    )


def _folded(name: str) -> str:
    """The name without case, blanks, invisible characters and differences of Unicode form."""
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(
        letter for letter in normal if not letter.isspace() and unicodedata.category(letter) not in _INVISIBLE
    )


_INVISIBLE = ("Cc", "Cf")  # control characters; zero-width blanks and byte order marks


def _is_plain(name: str) -> bool:
    """Whether a name has no blank at its ends, no invisible character, and the usual Unicode form."""
    is_visible = all(unicodedata.category(char) not in _INVISIBLE for char in name)
    return is_visible and name == unicodedata.normalize("NFC", name) == " ".join(name.split())


def _visible(name: str) -> str:
    """The name in quotation marks; escaped if characters in it cannot be seen or told apart."""
    return repr(name) if _is_plain(name.strip()) else ascii(name)


def _no_class_finding(table: AnnotationTable, counts: dict[str, int], name: str) -> Finding:
    others = [other for other in counts if not _is_no_class(other, table)]
    return Finding(
        "warning",
        "background as a class",
        table.source,
        f"{_visible(name)} ({_number(table, counts[name])}): usually no class, since all that is not annotated is "
        "background, and it takes a place among the classes of the network",
        _select(table, others),
        fix="" if counts[name] or table.label_fields or not others else REMOVE_CLASS,
        names=(name,),
    )


def _is_no_class(name: str, table: AnnotationTable) -> bool:
    plain = _folded(name.rpartition("=")[2]).replace("_", "").replace("-", "")
    return plain in NO_CLASS and not (table.has_class_index and plain == "background")


def _unused_findings(table: AnnotationTable, counts: dict[str, int], unused: list[str]) -> list[Finding]:
    if not unused or not any(counts.values()) or len(unused) > max(UNUSED, UNUSED_SHARE * len(counts)):
        return []
    noun = "images" if table.has_class_index else "instances"
    used = [name for name in counts if name not in unused]
    return [
        Finding(
            "warning",
            f"class without {noun}",
            table.source,
            f"class {_visible(name)} has no {noun}, which cannot be learned "
            f"({len(unused)} of {counted(len(counts), 'class', 'classes')})",
            f"annotate some, or {_select(table, used)}",
            fix="" if table.label_fields else REMOVE_CLASS,
            names=(name,),
        )
        for name in unused
    ]


def _number(table: AnnotationTable, count: int) -> str:
    return counted(count, "image" if table.has_class_index else "instance")


def _select(table: AnnotationTable, names: list[str]) -> str:
    """How the other classes alone are read."""
    text = ",".join(names)
    if not names:
        return "if it is an object, rename it"
    if table.label_fields or len(text) > 80 or any("," in name or name != name.strip() for name in names):
        return "list the others with --classes"
    return f'pass --classes "{text}"' if " " in text else f"pass --classes {text}"
