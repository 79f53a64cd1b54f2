"""Name an instance in messages, so that it is found in the source."""

from __future__ import annotations

import numpy as np

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable


def instance_name(table: AnnotationTable, row: int) -> str:
    """``a.jpg, annotation 17`` by the id of the source; without one ``a.jpg, instance 3``, counted from 1 in the image.

    Args:
        table: any table that has the image of the instance.
        row: row of the instance columns.
    """
    image = int(np.flatnonzero((table.start <= row) & (row < table.stop))[0])
    annotation = int(table.annotation_id[row])
    number = f"annotation {annotation}" if annotation >= 0 else f"instance {row - int(table.start[image]) + 1}"
    return f"{file_name(table, image)}, {number}"
