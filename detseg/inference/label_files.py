"""Write results as annotation files, which tools for labelling read: image by image, from ``predictions.jsonl``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from detseg.annotations.formats.cvat.write import TAIL, check_xml, cvat_head, cvat_image
from detseg.annotations.formats.labelme.write import labelme_file
from detseg.annotations.formats.yolo.write import yolo_config, yolo_lines
from detseg.annotations.repair_log import RepairLog
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.inference.output_paths import OutputPaths, folder_of
from detseg.inference.predicted_records import predicted_record
from detseg.inference.prediction_files import read_results
from detseg.keypoints import KeypointSchema
from detseg.runtime.files import atomic_write, write_json, write_text
from detseg.short_text import printable_name

KINDS = ("labelme", "yolo", "cvat")


class LabelFiles:
    """Writes the annotation files of one ``predict``.

    Args:
        paths: of the images, all of them.
        sources: name -> image file; LabelMe finds its images by relative paths.
        min_score: lowest score of the objects that are written.

    Attributes:
        notes: what a format cannot store.
        not_written: images without an annotation file.
    """

    def __init__(
        self, paths: OutputPaths, class_map: ClassMap, schema: KeypointSchema | None, min_score: float
    ) -> None:
        self._paths, self._class_map, self._schema, self._min_score = paths, class_map, schema, min_score
        self.notes, self.not_written = RepairLog(), RepairLog()

    def write(self, kinds: Collection[str], sources: dict[str, Path]) -> None:
        """Write the files of some of :data:`KINDS`.

        Raises:
            DataError: CVAT's format cannot store the name of a class.
            WriteError: the disk is full.
        """
        if "labelme" in kinds:
            self._write_labelme(sources)
        if "yolo" in kinds:
            self._write_yolo()
        if "cvat" in kinds:
            self._write_cvat()

    def _records(self, outlines: str) -> Iterator[tuple[dict[str, Any], Any]]:
        for line in read_results(self._paths.folder):
            yield (
                line,
                predicted_record(
                    line, self._class_map, self._schema, min_score=self._min_score, outlines=outlines, notes=self.notes
                ),
            )

    def _write_labelme(self, sources: dict[str, Path]) -> None:
        for line, record in self._records("rings"):
            name = line["file_name"]
            path = self._paths.annotation("labelme", name)
            image = os.path.relpath(sources[name], path.parent).replace(os.sep, "/")
            try:
                write_json(path, labelme_file(record, self._class_map, image, self.notes))
            except UnicodeEncodeError:
                self.not_written.add("LabelMe file not written: the name of its image is not UTF-8", name)

    def _write_yolo(self) -> None:
        top = folder_of(self._paths.folder, "yolo")
        for line, record in self._records("ring"):
            name = line["file_name"]
            if name in self._paths.same_stem:
                kind = "YOLO file not written: another image differs only in its suffix"
                self.not_written.add(kind, printable_name(name))
                continue
            lines = yolo_lines(record, name, self.notes)
            write_text(self._paths.annotation("yolo", name), "".join(f"{line}\n" for line in lines))
        write_text(top / "data.yaml", yolo_config(self._class_map, self._schema, self.notes))

    def _write_cvat(self) -> None:
        with atomic_write(folder_of(self._paths.folder, "cvat") / "annotations.xml") as file:
            file.write(cvat_head(self._class_map, "the model").encode())
            for line, record in self._records("rle"):
                name = line["file_name"]
                try:
                    check_xml(name, name)
                except DataError:
                    kind = "image not in the CVAT file: XML does not allow a character of its name"
                    self.not_written.add(kind, printable_name(name))
                    continue
                file.write(cvat_image(line["image_id"] - 1, name, record, self._class_map, self.notes).encode())
            file.write(TAIL.encode())
