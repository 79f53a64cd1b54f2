"""Classes of a masks data set: from values with or without names, from file names, or stated by the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from detseg.annotations.formats.masks.names import is_unused
from detseg.annotations.groups import first_names
from detseg.class_names import unknown_class
from detseg.classes import ClassMap
from detseg.errors import DataError

ONE_CLASS = "object"
"""The class of all objects if neither file names nor ``classes`` nor a file of names specify one."""


def classes_of_values(
    root: Path, used: Mapping[int, str], classes: Sequence[str] | None, names: Sequence[str] = ()
) -> tuple[ClassMap, dict[int, int]]:
    """The class map, and the label of each value; values of unselected classes are missing.

    Args:
        used: the values of objects, and where the first of each is.
        classes: stated by the user: some of ``names``, or the names of the values 1, 2, ...
        names: of the values 0, 1, 2, ...; empty if there is no file of names.

    Raises:
        DataError: a value without a name, or no class at all.
    """
    named = {name: value for value, name in enumerate(names) if not is_unused(name)}
    if classes is not None and not named:
        for value, where in sorted(used.items()):
            if value > len(classes):
                raise DataError(
                    f"{where} has no name: --classes has {len(classes)} names, for the values 1 to "
                    f"{len(classes)}; add names, set other values to 255 (ignored), or pass --mask-values instance"
                )
        return ClassMap.from_names(classes), {value: value for value in range(1, len(classes) + 1)}
    if named:
        for value, where in sorted(used.items()):
            if value not in named.values():
                raise DataError(
                    f"{where} has no name: the file of names beside the masks has names for {len(named)} values up to "
                    f"{max(named.values())}; add a line to it, or pass the names of 1, 2, ... with --classes"
                )
        first = 1 if 0 in named.values() else 0
        class_map = ClassMap(tuple(named), tuple(value + first for value in named.values())).select(classes, str(root))
        return class_map, {named[name]: label for label, name in enumerate(class_map.names, start=1)}
    values = tuple(sorted(used))
    if not values:
        raise DataError(f"{root}: no mask contains an object, so there is no class; pass the classes with --classes")
    return ClassMap(tuple(f"class {value}" for value in values), values), {
        value: label for label, value in enumerate(values, start=1)
    }


def classes_of_names(
    root: Path, class_names: set[str], classes: Sequence[str] | None, listed: Sequence[str] = ()
) -> ClassMap:
    """The class map if values are no classes.

    Args:
        class_names: classes in the names of the mask files; "" for files without one.
        classes: stated by the user.
        listed: names in a file beside the masks; used if there is only one.

    Raises:
        DataError: ``classes`` are not those in the file names, or several for masks that do not distinguish classes.
    """
    names = sorted(class_names - {""})
    if not names:
        if classes is not None and len(classes) > 1:
            raise DataError(
                f"{root}: the masks do not distinguish classes, but --classes lists {', '.join(classes)}; pass one "
                "name, or pass --mask-values class if the values are classes"
            )
        return ClassMap.from_names(classes or (listed if len(listed) == 1 else [ONE_CLASS]))
    if "" in class_names:
        raise DataError(
            f"{root}: some masks have a class in their file name ({first_names(names)}), others have none; "
            "name all of them like img_7_square_2.png"
        )
    unknown = [name for name in classes or () if name not in names]
    if unknown:
        raise unknown_class(f"{root}: no mask has the class {', '.join(unknown)}; file names contain ", unknown, names)
    return ClassMap.from_names(classes or names)
