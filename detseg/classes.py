"""Class names and the three numbers of a class: label, class_index, category_id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detseg.class_names import unknown_class
from detseg.errors import DataError
from detseg.short_text import listed, with_classes


@dataclass(frozen=True)
class ClassMap:
    """K classes in a fixed order.

    ``label`` is 1..K (0 is background and never stored), ``class_index`` is 0..K-1, and ``category_id`` is the number
    in the data set's files.

    Attributes:
        names: K unique names.
        category_ids: the id of each class in the data set's files, unique; 1..K unless the source specifies others.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.names) + 1)))
        if len(self.category_ids) != len(self.names):
            raise DataError(
                f"{len(self.names)} class names but {len(self.category_ids)} category ids; give one id per name"
            )
        for kind, values in (("class name", self.names), ("category id", self.category_ids)):
            duplicates = sorted(str(value) for value, count in Counter(values).items() if count > 1)
            if duplicates:
                raise DataError(
                    f"{kind} {', '.join(duplicates)} appears twice; rename or merge these classes in the source"
                )

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        is_numbered = self.category_ids == tuple(range(1, len(self) + 1))
        ids = "" if is_numbered else f"; category ids {listed([str(number) for number in self.category_ids], 40)}"
        return f"ClassMap({with_classes(self.names)}{ids})"

    @property
    def num_classes(self) -> int:
        """K + 1: torchvision counts the background."""
        return len(self.names) + 1

    def name_of(self, label: int) -> str:
        """The name of ``label`` (1..K)."""
        return self.names[self._index(label)]

    def category_id_of(self, label: int) -> int:
        """The category id of ``label`` (1..K) in the data set's files."""
        return self.category_ids[self._index(label)]

    def label_of(self, name: str) -> int:
        """The label of a class name; DataError with the available names if there is none."""
        if name not in self.names:
            raise DataError(f"unknown class {name!r}; the classes are {', '.join(self.names)}")
        return self.names.index(name) + 1

    def select(self, names: Sequence[str] | None, source: str) -> ClassMap:
        """A class map of these classes in this order, with their category ids; all classes for None.

        Args:
            source: name of the data in error messages.

        Raises:
            UnknownClassError: unknown class name; the message lists the available ones.
        """
        if names is None:
            return self
        id_of = dict(zip(self.names, self.category_ids, strict=True))
        unknown = [name for name in names if name not in id_of]
        if unknown:
            start = f"{source}: no class {', '.join(map(repr, unknown))}; available classes: "
            raise unknown_class(start, unknown, self.names)
        return ClassMap(tuple(names), tuple(id_of[name] for name in names))

    def labels_by_category_id(self) -> dict[int, int]:
        """``category_id -> label`` for all classes."""
        return {category_id: index + 1 for index, category_id in enumerate(self.category_ids)}

    def to_dict(self) -> dict[str, Any]:
        return {"names": list(self.names), "category_ids": list(self.category_ids)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ClassMap:
        return cls(tuple(value["names"]), tuple(value["category_ids"]))

    @classmethod
    def from_names(cls, names: Sequence[str]) -> ClassMap:
        return cls(tuple(names))

    def _index(self, label: int) -> int:
        if not 1 <= label <= len(self.names):
            raise DataError(f"label {label} is outside 1..{len(self.names)} (0 is background and never stored)")
        return label - 1


@dataclass(frozen=True)
class LabelField:
    """One of several classifications of each image, such as colour or shape (multi-output classification).

    Attributes:
        name: the field's name in the data set.
        class_map: its K classes; ``class_index`` counts within them.
    """

    name: str
    class_map: ClassMap

    def __len__(self) -> int:
        return len(self.class_map)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "class_map": self.class_map.to_dict()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> LabelField:
        return cls(value["name"], ClassMap.from_dict(value["class_map"]))


def joined(fields: Sequence[LabelField]) -> ClassMap:
    """Concatenate the classes of all fields in one map, field by field, as ``colour=red``; category ids 1..K.

    Raises:
        DataError: there is only one field (use its class map), a field has no name or no class, or a name appears
            twice.
    """
    names = [field.name for field in fields]
    invalid = sorted({name for name in names if not name or names.count(name) > 1})
    if len(fields) < 2 or invalid:
        raise DataError(
            f"label fields {', '.join(map(repr, names)) or 'none'}: two or more are needed, each with a unique name"
        )
    empty = [field.name for field in fields if not len(field)]
    if empty:
        raise DataError(f"label field {', '.join(empty)} has no class; remove the column")
    return ClassMap(tuple(f"{field.name}={name}" for field in fields for name in field.class_map.names))
