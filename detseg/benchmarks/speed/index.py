"""Run ``benchmark index``: load a COCO file of the size of train2017 as a table, and with ``pycocotools.COCO``.

The file is generated, and its images do not exist: both implementations use the image sizes in the file. Each load
has a new process, so that only its memory is measured.
"""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detseg.benchmarks.speed.interleaved_timing import Comparison
from detseg.errors import DataError
from detseg.runtime.reporter import progress

IMAGES, INSTANCES = 118_287, 860_001
"""Numbers of COCO's instances_train2017.json."""

CROWDS = 0.012
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""The 80 category ids of COCO, with gaps."""

WORKERS = 8
TIME, MEMORY = 5.0, 5.0
"""Target ratios."""

SAMPLE = 2000
"""Number of outlines that are compared; boxes, areas and classes are compared for all instances."""

_ROLLUP = Path("/proc/self/smaps_rollup")
_CHUNK = 20_000


def compare(
    device: object, *, images: int = IMAGES, instances: int = INSTANCES, turns: int = 3, workers: int = WORKERS
) -> list[Comparison]:
    """Compare loading time, memory after loading and memory with workers; without ``/proc`` only the time.

    Args:
        device: not used.
        workers: processes that read every record, like workers of a data loader.

    Raises:
        DataError: the two implementations do not load the same instances.
    """
    measured: dict[str, list[Measurement]] = {"ours": [], "theirs": []}
    with TemporaryDirectory(prefix="detseg-index-") as folder:
        path = write_index(Path(folder) / "instances_train2017.json", images, instances)
        size = path.stat().st_size / 1e6
        for turn in progress(range(turns), "index", unit="turn", leave=False):
            for side in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    measured[side].append(process.submit(measure, side, path, 0 if turn else workers).result())
            check_equal(measured["ours"][-1], measured["theirs"][-1])
    ours, theirs = measured["ours"], measured["theirs"]
    title, baseline = f"{images:,} images, {instances:,} instances", "pycocotools.COCO"
    same = f"a generated file of {size:.0f} MB; boxes, areas, classes of all and outlines of a sample are equal"
    rows = [_row(f"load {title}", ours, theirs, baseline, "seconds", "s", TIME, f"{same}; no image is opened")]
    if ours[0].steady is not None:
        peaks = [max(load.peak or 0.0 for load in loads) for loads in (ours, theirs)]
        note = f"peak while loading {peaks[0]:.0f} MB against {peaks[1]:.0f} MB"
        rows.append(_row(f"memory of {title}", ours, theirs, baseline, "steady", "MB", MEMORY, note))
        note = "each reads every record in random order, one worker after the other; their additional memory is summed"
        name = f"memory with {workers} workers"
        rows.append(_row(name, ours[:1], theirs[:1], baseline, "with_workers", "MB", None, note))
    return rows


@dataclass(frozen=True)
class Measurement:
    """One load in a separate process.

    Attributes:
        seconds: wall time of loading.
        steady, peak: additional MB after loading and at most; None if the system does not report them.
        with_workers: ``steady`` plus the private memory of the workers.
        content: checksums of the loaded data, for :func:`check_equal`.
    """

    seconds: float
    steady: float | None
    peak: float | None
    with_workers: float | None
    content: dict[str, str]


def measure(side: str, path: Path, workers: int) -> Measurement:
    """Load ``path`` in this process with "ours" or "theirs"; must be called in a new process."""
    load, read_all, content = _ours() if side == "ours" else _theirs()
    before = _memory("Pss")
    start = time.perf_counter()
    index = load(path)
    seconds = time.perf_counter() - start
    gc.collect()
    if before is None:
        return Measurement(seconds, None, None, None, content(index))
    import resource  # not available on Windows

    steady = (_memory("Pss") or 0.0) - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    added = [_added_by_worker(read_all, index, seed) for seed in range(workers)]
    return Measurement(seconds, steady, peak, steady + sum(added), content(index))


def check_equal(ours: Measurement, theirs: Measurement) -> None:
    """Raise DataError unless both have equal content."""
    different = [name for name, value in ours.content.items() if theirs.content[name] != value]
    if different:
        raise DataError(f"the index differs from that of pycocotools in {', '.join(different)}")


def write_index(path: Path, images: int, instances: int, seed: int = 0) -> Path:
    """Write a COCO file with keys, decimals, vertices and crowds as in instances_train2017.json; returns ``path``.

    Polygons are star-shaped blobs with COCO's numbers of vertices (half of them below 18, a mean of 25), one in ten
    in two parts; crowds have uncompressed run lengths; annotations are not sorted by image, and some images have none.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(rng.choice(5 * images, images, replace=False) + 1)
    landscape = rng.random(images) < 0.7
    height = np.where(landscape, rng.integers(360, 481, images), 640)
    width = np.where(landscape, 640, rng.integers(400, 501, images))
    share = rng.exponential(1, images)
    image = rng.choice(images, instances, p=share / share.sum())
    listed = [
        {
            "license": number % 8 + 1,
            "file_name": f"{number:012}.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/{number:012}.jpg",
            "height": h,
            "width": w,
            "date_captured": f"2013-11-{number % 30 + 1:02} {number % 24:02}:{number % 60:02}:{number % 59:02}",
            "flickr_url": f"http://farm{number % 9 + 1}.staticflickr.com/{number % 8999}/{number * 7919:010}_z.jpg",
            "id": number,
        }
        for number, h, w in zip(ids.tolist(), height.tolist(), width.tolist(), strict=True)
    ]
    categories = [{"supercategory": "thing", "id": number, "name": f"class {number}"} for number in CATEGORY_IDS]
    licenses = [{"url": "http://example.org", "id": number, "name": f"license {number}"} for number in range(1, 9)]
    with path.open("wb") as file:
        file.write(b'{"info":{"description":"generated"},"licenses":' + msgspec.json.encode(licenses))
        file.write(b',"images":' + msgspec.json.encode(listed) + b',"annotations":[')
        for first in range(0, instances, _CHUNK):
            some = image[first : first + _CHUNK]
            size_wh = np.stack([width[some], height[some]], axis=1)
            annotations = list(_annotations(rng, size_wh, ids[some], first + 1))
            file.write((b"," if first else b"") + msgspec.json.encode(annotations)[1:-1])
        file.write(b'],"categories":' + msgspec.json.encode(categories) + b"}")
    return path


def _annotations(
    rng: np.random.Generator, size_wh: npt.NDArray[np.int64], image_ids: npt.NDArray[np.int64], first_id: int
) -> Iterator[dict[str, Any]]:
    """Yield one annotation for each row of ``size_wh``."""
    number = len(size_wh)
    vertices = np.clip(np.exp(rng.normal(np.log(18), 0.8, number)), 4, 300).astype(np.int64)
    start = np.cumsum(vertices) - vertices
    half = size_wh * np.exp(rng.uniform(np.log(0.02), np.log(0.4), (number, 1))) * rng.uniform(0.5, 1, (number, 2))
    centre = half + rng.random((number, 2)) * (size_wh - 2 * half)
    angle = (np.arange(vertices.sum()) - np.repeat(start, vertices) + rng.uniform(0, 0.8, vertices.sum())) / np.repeat(
        vertices, vertices
    )
    ring = np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=1)
    ring *= rng.uniform(0.6, 1, (len(ring), 1)) * np.repeat(half, vertices, axis=0)
    points = np.round(np.abs(ring + np.repeat(centre, vertices, axis=0)), 2)
    low, high = np.minimum.reduceat(points, start), np.maximum.reduceat(points, start)
    boxes = np.round(np.concatenate([low, high - low], axis=1), 2)
    areas = (boxes[:, 2:].prod(axis=1) * rng.uniform(0.5, 0.8, number)).tolist()
    crowd = (rng.random(number) < CROWDS).tolist()
    in_two = ((rng.random(number) < 0.1) & (vertices >= 8)).tolist()
    category = rng.choice(CATEGORY_IDS, number).tolist()
    numbers, begins, ends = points.ravel().tolist(), (2 * start).tolist(), (2 * (start + vertices)).tolist()
    for i, (box, image_id, (w, h)) in enumerate(zip(boxes.tolist(), image_ids.tolist(), size_wh.tolist(), strict=True)):
        middle = begins[i] + (ends[i] - begins[i]) // 4 * 2 if in_two[i] else ends[i]
        outline: Any = [part for part in (numbers[begins[i] : middle], numbers[middle : ends[i]]) if part]
        if crowd[i]:
            cuts = np.unique(rng.integers(1, h * w, rng.integers(100, 1600)))
            outline = {"counts": np.diff(cuts, prepend=0, append=h * w).tolist(), "size": [h, w]}
        yield {
            "segmentation": outline,
            "area": areas[i],
            "iscrowd": int(crowd[i]),
            "image_id": image_id,
            "bbox": box,
            "category_id": category[i],
            "id": first_id + i,
        }


Implementation = tuple[Callable[[Path], Any], Callable[[Any, int], None], Callable[[Any], dict[str, str]]]
"""Functions that load the file, read every record in random order, and return checksums of the content."""


def _ours() -> Implementation:
    from detseg.annotations.formats.coco.read import read_coco
    from detseg.annotations.table import AnnotationTable

    def read_all(table: AnnotationTable, seed: int) -> None:
        for row in np.random.default_rng(seed).permutation(len(table)).tolist():
            for outline in table[row].segmentations:
                assert outline is not None

    def content(table: AnnotationTable) -> dict[str, str]:
        order = np.argsort(table.annotation_id)
        ids = np.array(table.class_map.category_ids)[table.label[order] - 1]
        outlines = hashlib.sha256()
        for row in _sample(order.tolist()):
            outline = table.segmentation[row]
            rings = [outline["counts"]] if isinstance(outline, dict) else [ring.tobytes() for ring in outline or ()]
            outlines.update(b"".join(rings))
        return _content(len(table), table.boxes_xywh[order], table.area[order], ids, outlines.hexdigest())

    return lambda path: read_coco(path, False), read_all, content


def _theirs() -> Implementation:
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO

    def load(path: Path) -> COCO:
        with redirect_stdout(StringIO()):
            return COCO(str(path))

    def read_all(index: COCO, seed: int) -> None:
        ids = index.getImgIds()
        for row in np.random.default_rng(seed).permutation(len(ids)).tolist():
            for annotation in index.loadAnns(index.getAnnIds(imgIds=[ids[row]])):
                np.array(annotation["bbox"])
                outline = annotation["segmentation"]
                for ring in [outline["counts"]] if isinstance(outline, dict) else outline:
                    np.array(ring)

    def content(index: COCO) -> dict[str, str]:
        annotations = [index.anns[number] for number in sorted(index.anns)]
        outlines = hashlib.sha256()
        for annotation in _sample(annotations):
            outline = annotation["segmentation"]
            if isinstance(outline, dict):
                outlines.update(coco_mask.frPyObjects(outline, *outline["size"])["counts"])
            else:
                outlines.update(b"".join([np.array(ring, np.float64).tobytes() for ring in outline]))
        columns = [np.array([annotation[key] for annotation in annotations]) for key in ("bbox", "area", "category_id")]
        return _content(len(index.imgs), columns[0], columns[1], columns[2], outlines.hexdigest())

    return load, read_all, content


def _sample(values: list[Any]) -> list[Any]:
    return values[:: max(1, len(values) // SAMPLE)]


def _content(
    images: int,
    boxes: npt.NDArray[np.float64],
    areas: npt.NDArray[np.float64],
    categories: npt.NDArray[np.int64],
    outlines: str,
) -> dict[str, str]:
    """Return checksums of the columns, which are sorted by annotation id."""

    def checksum(values: npt.NDArray[Any], dtype: type) -> str:
        return hashlib.sha256(np.ascontiguousarray(values, dtype).tobytes()).hexdigest()

    return {
        "images": str(images),
        "instances": str(len(boxes)),
        "boxes": checksum(boxes, np.float64),
        "areas": checksum(areas, np.float64),
        "classes": checksum(categories, np.int64),
        "outlines": outlines,
    }


def _added_by_worker(read_all: Callable[[Any, int], None], index: Any, seed: int) -> float:
    """Return the private MB of a forked process after it has read every record."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work(connection: Connection) -> None:
        read_all(index, seed)
        connection.send((_memory("Private_Clean") or 0.0) + (_memory("Private_Dirty") or 0.0))

    worker = context.Process(target=work, args=(sender,))
    worker.start()
    sender.close()
    try:
        return float(receiver.recv())
    finally:
        worker.join()


def _memory(key: str) -> float | None:
    """Return MB of this process; "Pss" counts a share of shared pages. None if the system does not report it."""
    if not _ROLLUP.exists():
        return None
    line = next(line for line in _ROLLUP.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


def _row(
    name: str,
    ours: list[Measurement],
    theirs: list[Measurement],
    baseline: str,
    attribute: str,
    unit: str,
    target: float | None,
    note: str,
) -> Comparison:
    values = [tuple(float(getattr(load, attribute)) for load in loads) for loads in (ours, theirs)]
    return Comparison(name, baseline, values[0], values[1], target, note, unit)
