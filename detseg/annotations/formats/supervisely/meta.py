"""Read the classes of a Supervisely project from its meta.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.repair_log import RepairLog
from detseg.media.files import is_file

META = "meta.json"


class _Node(msgspec.Struct):
    label: str | None = None


class _Edge(msgspec.Struct):
    src: str = ""
    dst: str = ""


class _Graph(msgspec.Struct):
    nodes: dict[str, _Node] = {}
    edges: list[_Edge] = []


class _Class(msgspec.Struct):
    title: str
    shape: str = ""
    id: int | None = None
    geometry_config: _Graph | None = None


class _Meta(msgspec.Struct):
    classes: list[_Class] = []


@dataclass(frozen=True)
class Meta:
    """The classes of a project.

    Attributes:
        shapes: title of a class -> its shape, such as "polygon", in the order of the file.
        titles: id of a class -> its title.
        nodes: title of a class of keypoints -> id of a node -> name of the keypoint.
        edges: pairs of names of keypoints.
    """

    shapes: dict[str, str] = field(default_factory=dict)
    titles: dict[int, str] = field(default_factory=dict)
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def skeleton(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """The edges as pairs of positions in ``names``."""
        edges = [(source, target) for source, target in self.edges if source in names and target in names]
        return [(names.index(source), names.index(target)) for source, target in dict.fromkeys(edges)]


def read_meta(path: Path, notes: RepairLog) -> Meta:
    """The classes in a meta.json; none if the file does not exist.

    Raises:
        DataError: not JSON, or values of another type.
    """
    meta = Meta()
    if not is_file(path):
        return meta
    for item in load_tool_json(path, path.name, _Meta, "Supervisely", notes).classes:
        meta.shapes[item.title] = item.shape
        if item.id is not None:
            meta.titles[item.id] = item.title
        if item.geometry_config is not None:
            nodes = {key: node.label or key for key, node in item.geometry_config.nodes.items()}
            meta.nodes[item.title] = nodes
            meta.edges.extend(
                (nodes[edge.src], nodes[edge.dst])
                for edge in item.geometry_config.edges
                if edge.src in nodes and edge.dst in nodes
            )
    return meta
