"""The class is an attribute of the object, which its values or the user decide."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real_exports import cases_rename, sets
from tests.real_exports.case import Box, Case, Refused, Right

BOX_A: Box = (10.0, 12.0, 40.0, 36.0)
BOX_B: Box = (50.0, 20.0, 80.0, 60.0)
DEFAULTS = {"image_quality": {"good": True, "frontal": True, "good_illumination": True}}
"""What VIA's own demo attributes leave in every region."""


def via(*attributes: dict[str, Any], **more: Any) -> Callable[[Path], object]:
    """A writer: the attributes of the regions of two images."""

    def write(root: Path) -> None:
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
                "region_attributes": values,
            }
            for values, (x1, y1, x2, y2) in zip(attributes, (BOX_A, BOX_B), strict=True)
        ]
        sets.via(root, {"a.png": regions, "b.png": regions}, **more)

    return write


def project(**definitions: Any) -> dict[str, Any]:
    return {"_via_settings": {}, "_via_attributes": {"region": definitions, "file": {}}}


def cvat(root: Path) -> None:
    """Labels vehicle and person; only vehicles have a type, and one of them is not filled."""

    def box(label: str, values: Box, inner: str) -> str:
        x1, y1, x2, y2 = values
        return f'<box label="{label}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}">{inner}</box>'

    sedan, bus = ('<attribute name="type">sedan</attribute>', '<attribute name="type">bus</attribute>')
    undefined, colour = '<attribute name="type">__undefined__</attribute>', '<attribute name="colour">red</attribute>'
    vehicles = [box("vehicle", BOX_A, colour + sedan), box("vehicle", BOX_B, bus)]
    sets.cvat(
        root, {"a.png": vehicles, "b.png": [*vehicles, box("vehicle", BOX_A, undefined), box("person", BOX_B, "")]}
    )


def cvat_video(root: Path) -> None:
    """Tracks, whose attribute is that of the track or of the shape in a frame."""
    attribute, size = (
        '<attribute name="type">{}</attribute>',
        "<meta><original_size><width>96</width><height>72</height>",
    )
    tracks = ""
    for number, (x1, y1, x2, y2) in enumerate((BOX_A, BOX_B)):
        box = f'<box frame="{{}}" outside="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}">{{}}</box>'
        of_track, of_shape = (attribute.format("bus"), "") if number else ("", attribute.format("sedan"))
        shapes = "".join(box.format(frame, of_shape) for frame in range(2))
        tracks += f'<track id="{number}" label="vehicle">{of_track}{shapes}</track>'
    for frame in range(2):
        sets.image(root / "images" / f"frame_{frame:06}.png")
    text = f"<annotations><version>1.1</version>{size}</original_size></meta>{tracks}</annotations>"
    sets.put(root / "annotations.xml", text)


def csv(header: str, *cells: str) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        rows = [
            f"{image},{','.join(map(str, box))},{values}"
            for image in ("a.png", "b.png")
            for box, values in zip((BOX_A, BOX_B), cells, strict=True)
        ]
        sets.csv(root, f"filename,xmin,ymin,xmax,ymax,{header}", rows)

    return write


def landmarks(root: Path) -> None:
    rows = [
        f"{image},{','.join(map(str, box))},{box[0] + 3},{box[1] + 3},{name}"
        for image in ("a.png", "b.png")
        for box, name in ((BOX_A, "cat"), (BOX_B, "dog"))
    ]
    sets.csv(root, "filename,xmin,ymin,xmax,ymax,nose_x,nose_y,breed", rows)


def both(first: str, second: str) -> dict[str, list[tuple[str, Box]]]:
    boxes = [(name, box) for name, box in ((first, BOX_A), (second, BOX_B)) if name]
    return {"a.png": boxes, "b.png": boxes}


def only(format_name: str, writer: Callable[[Path], object]) -> Case:
    """A format without attributes refuses the option, and reads the set without it."""
    return Case(
        "--class-attribute without attributes",
        format_name,
        writer,
        Refused(
            "--class-attribute type is for VIA, CVAT and CSV, whose objects may have several attributes: omit it",
            Right(both("bolt", "nut"), note="mask values" if format_name == "masks" else ""),
            options={"class_attribute": "type"},
        ),
    )


def _coco(root: Path) -> None:
    boxes = [[10, 12, 30, 24], [50, 20, 30, 40]]
    items = [{"bbox": box, "area": box[2] * box[3], "category_id": number} for number, box in enumerate(boxes, 1)]
    sets.coco(root, {"a.png": items, "b.png": items})


def _voc(root: Path) -> None:
    sets.voc(root, both("bolt", "nut"))


def _yolo(root: Path) -> None:
    lines = [
        f"{number} {(x1 + x2) / 2 / 96:.9f} {(y1 + y2) / 2 / 72:.9f} {(x2 - x1) / 96:.9f} {(y2 - y1) / 72:.9f}"
        for number, (x1, y1, x2, y2) in enumerate((BOX_A, BOX_B))
    ]
    sets.yolo(root, {"a.png": lines, "b.png": lines})


def _labelme(root: Path) -> None:
    shapes = [
        {"label": name, "points": [box[:2], box[2:]], "shape_type": "rectangle"}
        for name, box in both("bolt", "nut")["a.png"]
    ]
    sets.labelme(root, {"a.png": shapes, "b.png": shapes})


USED = "region attribute used as the class: "
CASES = [
    Case(
        "a usual name that is not filled",
        "via",
        via({"name": "not_defined", "type": "bolt"}, {"name": "", "type": {"nut": True, "bolt": False}}),
        Right(both("bolt", "nut")),
    ),
    Case(
        "the attributes of a new project",
        "via",
        via(
            {"name": "not_defined", "type": "human", **DEFAULTS},
            {"name": "not_defined", "type": "bird", **DEFAULTS},
            **project(name={"type": "text", "default_value": "not_defined"}, type={"type": "dropdown", "options": {}}),
        ),
        Right(both("human", "bird")),
    ),
    Case(
        "an attribute left at its default",
        "via",
        via(
            {"view": "side", "species": "cat"},
            {"view": "side", "species": "dog"},
            **project(view={"type": "radio", "options": {"side": "", "top": ""}, "default_options": {"side": True}}),
        ),
        Right(both("cat", "dog"), note=USED + r"species \(via.json\)$"),
    ),
    Case(
        "two usual names that are filled",
        "via",
        via({"class": "bolt", "type": "long"}, {"class": "nut", "type": "short"}),
        Right(
            both("bolt", "nut"), note=re.escape(USED + "class (via.json); also filled: type (--class-attribute NAME")
        ),
    ),
    Case(
        "another usual name stated",
        "via",
        via({"class": "bolt", "type": "long"}, {"class": "nut", "type": "short"}),
        Right(both("long", "short"), options={"class_attribute": "type"}),
    ),
    Case(
        "a stated attribute that some regions have",
        "via",
        via({"class": "bolt", "type": "long"}, {"class": "nut"}),
        Right(both("long", ""), note="2 x instance without a class dropped", options={"class_attribute": "type"}),
    ),
    Case(
        "two attributes that may be the class",
        "via",
        via({"colour": "red", "species": "cat"}, {"colour": "blue", "species": "dog"}),
        Refused(
            re.escape("2 region attributes may be the class (colour: red, blue; species: cat, dog); pass")
            + " --class-attribute colour, or",
            Right(both("cat", "dog"), options={"class_attribute": "species"}),
        ),
    ),
    Case(
        "a stated attribute that does not exist",
        "via",
        via({"colour": "red", "species": "cat"}, {"colour": "blue", "species": "dog"}),
        Refused(
            r"--class-attribute specie: this region attribute does not exist; with values: .*; did you mean species",
            Right(both("cat", "dog"), options={"class_attribute": "Species"}),
            options={"class_attribute": "specie"},
        ),
    ),
    Case(
        "no attribute that is filled",
        "via",
        via({"name": "not_defined", "type": ""}, {"name": "", "type": {}}),
        Right(
            both("balloon", "balloon"),
            note="attributes without any value: all instances have the class 'object'",
            options={"rename": "object=balloon"},
        ),
    ),
    Case(
        "the class is an attribute",
        "cvat",
        cvat,
        Right(both("sedan", "bus"), note="2 x instance without a class dropped", options={"class_attribute": "type"}),
    ),
    Case(
        "a stated attribute that does not exist",
        "cvat",
        cvat,
        Refused(
            "annotations.xml: --class-attribute typ: no shape has a value of this.*with values: .*did you mean type",
            Right(both("sedan", "bus"), note="2 x instance without a class", options={"class_attribute": "type"}),
            options={"class_attribute": "typ"},
        ),
    ),
    Case(
        "the class is an attribute of tracks",
        "cvat",
        cvat_video,
        Right(
            {f"frame_{frame:06}.png": both("sedan", "bus")["a.png"] for frame in range(2)},
            options={"class_attribute": "type"},
        ),
    ),
    Case(
        "the class is another column",
        "csv",
        csv("class,Defect Type", "part,scratch", "part,dent"),
        Right(both("scratch", "dent"), note="column ignored: class", options={"class_attribute": "defect_type"}),
    ),
    Case(
        "the column of the class has a name of its own",
        "csv",
        csv("defect", "scratch", ""),
        Right(both("scratch", ""), note="2 x instance without a class", options={"class_attribute": "defect"}),
    ),
    Case(
        "landmarks with a column of the class",
        "csv",
        landmarks,
        Right(both("cat", "dog"), options={"class_attribute": "breed"}),
    ),
    Case(
        "a stated column that does not exist",
        "csv",
        csv("class,defect", "part,scratch", "part,dent"),
        Refused(
            "--class-attribute deffect: no such column that may be the class; there are class, defect; did you mean",
            Right(both("scratch", "dent"), note="column ignored: class", options={"class_attribute": "defect"}),
            options={"class_attribute": "deffect"},
        ),
    ),
    only("coco", _coco),
    only("voc", _voc),
    only("yolo", _yolo),
    only("labelme", _labelme),
    Case(
        "--class-attribute without attributes",
        "masks",
        cases_rename.masks,
        Refused(
            "--class-attribute type is for VIA, CVAT and CSV",
            Right(cases_rename.both(cases_rename.OBJECTS), note="mask values interpreted as class"),
            options={"class_attribute": "type"},
        ),
    ),
]
