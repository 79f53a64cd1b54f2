"""Render the demo set from a seed: bolts, nuts and washers on a workbench, with exact instance masks.

    $ python -m detseg.synthetic.demo FOLDER
    FOLDER: 120 + 40 images

Everything is drawn by code (no photographs, only OpenCV's built-in fonts), so no third party has rights to the set.
An image is drawn at three times its size and reduced; a mask has the pixels that its instance covers by more than half.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.errors import DataError
from detseg.runtime.files import atomic_write, write_json
from detseg.runtime.reporter import terminal
from detseg.runtime.seeds import derive_seed
from detseg.synthetic.demo.bench import TEXTURES, make_bench
from detseg.synthetic.demo.clutter import CLUTTER, make_clutter
from detseg.synthetic.demo.parts import CLASSES, SHAPE_FAMILIES, SIZES, make_part
from detseg.synthetic.demo.shading import Float, Light, Patch, Rng, mottle, paint, stamp

__all__ = ["CLASSES", "CLUTTER", "SHAPE_FAMILIES", "TEXTURES", "Scene", "demo_folder", "draw_scene", "render"]

SCALE = 3  # canvas pixels per image pixel
MIN_VISIBLE = 0.4  # a part with a smaller visible fraction is removed, so that no unlabelled sliver remains
MIN_PIXELS = 24  # likewise a part with fewer visible pixels
NEGATIVES = 0.08  # fraction of images with clutter only
JPEG_QUALITY = 88
SPLITS = ("train", "val")
ID_STEP = 100_000  # ids of the second split start here, so that both files can be concatenated
_SIZES_HW = ((192, 256), (240, 320), (256, 192), (208, 288), (240, 240), (320, 240))
_FAMILY_ODDS = {"bolt": 0.36, "nut": 0.34, "washer": 0.30}


@dataclass(frozen=True)
class Scene:
    """One image and its ground truth.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        labels: int64 [N], 1..3 in the order of ``CLASSES``.
        masks: uint8 [N, H, W] in {0, 1}, visible pixels only; no pixel belongs to two instances.
    """

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    masks: npt.NDArray[np.uint8]


def draw_scene(seed: int) -> Scene:
    """Render the scene of a seed; it depends only on the seed."""
    rng = np.random.default_rng(seed)
    height, width = _SIZES_HW[int(rng.integers(len(_SIZES_HW)))]
    canvas_hw = (height * SCALE, width * SCALE)
    light = Light.draw(rng)
    closeness = rng.choice(3, p=[0.36, 0.44, 0.20])
    px_per_mm = SCALE * float(rng.uniform(*((1.7, 2.5), (2.5, 4.2), (4.2, 7.5))[closeness]))
    bench = make_bench(rng, str(rng.choice(list(TEXTURES))), canvas_hw, px_per_mm, light)
    part_count = 0 if rng.random() < NEGATIVES else int(rng.integers(*((2, 10), (1, 10), (1, 5))[closeness]))
    patches = _lay_out(rng, canvas_hw, px_per_mm, light, part_count)
    patches, owner = _drop_slivers(patches, canvas_hw)
    for patch in patches:
        paint(bench, patch, light)
    image = _photograph(rng, bench, (height, width))
    parts = [number for number, patch in enumerate(patches, 1) if patch.label]
    return Scene(
        image,
        np.array([patches[number - 1].label for number in parts], np.int64),
        np.array([owner == number for number in parts], np.uint8).reshape(-1, height, width),
    )


def _lay_out(rng: Rng, canvas_hw: tuple[int, int], px_per_mm: float, light: Light, part_count: int) -> list[Patch]:
    """Place clutter and up to ``part_count`` parts on the bench; patches from bottom to top."""
    lean = (float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.3, 0.3)))
    patches: list[Patch] = []
    for _ in range(int(rng.integers(2, 6)) if part_count == 0 else int(rng.integers(0, 5))):
        piece = make_clutter(rng, str(rng.choice(list(CLUTTER))), px_per_mm, light)
        patches.append(_place(rng, piece, canvas_hw, patches, 0.0))
    placed = 0
    for attempt in range(40 * part_count):
        if placed == part_count or (placed and attempt >= 4 * part_count):
            break
        part = _draw_part(rng, px_per_mm, light, lean, canvas_hw)
        trial = [*patches, _place(rng, part, canvas_hw, patches, 0.45)]
        if _all_visible(trial, canvas_hw):
            patches, placed = trial, placed + 1
    if rng.random() < 0.25:
        name = str(rng.choice(["cable", "cable_tie", "shaving", "paper_scrap"]))
        trial = [*patches, _place(rng, make_clutter(rng, name, px_per_mm, light), canvas_hw, patches, 0.5)]
        if _all_visible(trial, canvas_hw):
            patches = trial
    return patches


def _draw_part(rng: Rng, px: float, light: Light, lean: tuple[float, float], canvas_hw: tuple[int, int]) -> Patch:
    """A random part that is neither tiny nor larger than about three quarters of the image."""
    while True:
        kind = str(rng.choice(list(_FAMILY_ODDS), p=list(_FAMILY_ODDS.values())))
        family = str(rng.choice([name for name in SHAPE_FAMILIES if name.startswith(kind)]))
        part = make_part(rng, family, int(rng.choice(SIZES)), px, light, lean)
        if max(part.alpha.shape) < 0.75 * max(canvas_hw) and part.alpha.sum() > 2 * MIN_PIXELS * SCALE**2:
            return part


def _place(rng: Rng, patch: Patch, canvas_hw: tuple[int, int], others: Sequence[Patch], near: float) -> Patch:
    """Move a patch to a random position, with probability ``near`` close to one of the other parts."""
    parts = [other for other in others if other.label]
    half = np.array(patch.alpha.shape) / 2
    centre = rng.uniform(0.04, 0.96, 2) * canvas_hw
    if parts and rng.random() < near:
        other = parts[int(rng.integers(len(parts)))]
        other_half = np.array(other.alpha.shape) / 2
        angle = rng.uniform(0, 2 * np.pi)
        offset = rng.uniform(0.3, 0.85) * (half + other_half)
        centre = np.array([other.top, other.left]) + other_half + offset * (np.sin(angle), np.cos(angle))
        centre = np.clip(centre, 0, canvas_hw)
    top, left = np.round(centre - half).astype(int)
    return replace(patch, top=int(top), left=int(left))


def _id_buffer(patches: Sequence[Patch], canvas_hw: tuple[int, int]) -> npt.NDArray[np.int16]:
    """int16 [H, W]: 1 + index of the topmost patch at every canvas pixel, 0 for the bench."""
    ids = np.zeros(canvas_hw, np.int16)
    for number, patch in enumerate(patches, 1):
        stamp(ids, patch, number)
    return ids


def _all_visible(patches: Sequence[Patch], canvas_hw: tuple[int, int]) -> bool:
    """Whether enough of every part is visible, inside the image and under the others."""
    visible = np.bincount(_id_buffer(patches, canvas_hw).ravel(), minlength=len(patches) + 1)[1:]
    return all(
        count >= MIN_VISIBLE * patch.alpha.sum() for patch, count in zip(patches, visible, strict=True) if patch.label
    )


def _drop_slivers(patches: list[Patch], canvas_hw: tuple[int, int]) -> tuple[list[Patch], npt.NDArray[np.int16]]:
    """Remove parts that would own fewer than ``MIN_PIXELS`` pixels of the image.

    Returns the remaining patches and the owner of each pixel: int16 [H, W], 1 + index of the patch that covers more
    than half of the pixel (5 of its 9 canvas pixels), 0 for none.
    """
    while True:
        height, width = (side // SCALE for side in canvas_hw)
        blocks = _id_buffer(patches, canvas_hw).reshape(height, SCALE, width, SCALE).swapaxes(1, 2)
        votes = np.sort(blocks.reshape(height, width, SCALE * SCALE), axis=-1)
        middle = votes[..., votes.shape[-1] // 2]  # a majority of the votes is also the median
        owner = np.where((votes == middle[..., None]).sum(-1) * 2 > votes.shape[-1], middle, 0).astype(np.int16)
        owned = np.bincount(owner.ravel(), minlength=len(patches) + 1)[1:]
        remaining = [
            patch for patch, count in zip(patches, owned, strict=True) if not patch.label or count >= MIN_PIXELS
        ]
        if len(remaining) == len(patches):
            return patches, owner
        patches = remaining


def _photograph(rng: Rng, canvas: Float, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Simulate a small camera: blur, vignette, exposure, gamma and sensor noise."""
    image = cv2.resize(np.minimum(canvas, 4), size_hw[::-1], interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.35, 0.85)))
    y, x = np.mgrid[-1 : 1 : size_hw[0] * 1j, -1 : 1 : size_hw[1] * 1j].astype(np.float32)
    vignette = 1 - rng.uniform(0.05, 0.3) * (x * x + y * y) / 2
    level = rng.uniform(0.16, 0.30) / max(float(np.median(image)), 0.06)
    exposure = np.clip(level, 0.5, 1.9) ** 0.6
    image = image * (vignette * exposure)[..., None].astype(np.float32)
    image = np.where(image > 0.7, 0.7 + 0.3 * np.tanh((image - 0.7) / 0.5), image)  # compress highlights
    shot = rng.uniform(0.002, 0.009)
    grain = (
        rng.standard_normal((*size_hw, 3), dtype=np.float32) * 0.7
        + 0.5 * (mottle(rng, size_hw, (2, 2)) - 0.5)[..., None]
    )
    encoded = np.clip(image, 0, 1) ** np.float32(1 / 2.2) + np.float32(shot) * grain
    return np.asarray(np.clip(np.round(encoded * 255), 0, 255), np.uint8)


def render(folder: str | os.PathLike[str], *, train: int = 120, val: int = 40, seed: int = 0) -> None:
    """Render the demo set into ``folder``: images, ``instances_train.json`` and ``instances_val.json`` (COCO format).

    Every image has its own generator, seeded by (seed, split, index): the first n are the same in a set of any size.
    The JSON file of a split is written after its images, so a split that has one is complete.

    Raises:
        DataError: the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; specify a new folder or remove its content")
    with terminal().bar("rendering the demo set", total=train + val, unit="image", leave=True) as bar:
        for split_number, (split, count) in enumerate(zip(SPLITS, (train, val), strict=True)):
            (folder / split).mkdir(parents=True)
            images: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            for index in range(count):
                scene = draw_scene(derive_seed(seed, split_number, index))
                name = f"{split}/bench_{index + 1:04d}.jpg"
                height, width = scene.image.shape[:2]
                image_id = split_number * ID_STEP + index + 1
                images.append({"id": image_id, "file_name": name, "width": width, "height": height})
                annotations.extend(_annotations(scene, image_id, split_number * ID_STEP + len(annotations) + 1))
                _write_jpeg(folder / name, scene.image)
                bar.update()
            categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, 1)]
            info = {"description": f"detseg demo set, {split}, seed {seed}: rendered, no photographs", "version": "1"}
            value = {"info": info, "categories": categories, "images": images, "annotations": annotations}
            write_json(folder / f"instances_{split}.json", value)


def _annotations(scene: Scene, image_id: int, first_id: int) -> Iterator[dict[str, Any]]:
    """COCO annotations of one scene, numbered from ``first_id``: compressed RLE, since polygons have no holes."""
    for number, (label, mask) in enumerate(zip(scene.labels, scene.masks, strict=True), first_id):
        rle = coco_mask.encode(np.asfortranarray(mask))
        yield {
            "id": number,
            "image_id": image_id,
            "category_id": int(label),
            "bbox": [float(side) for side in coco_mask.toBbox(rle)],
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")},
        }


def _write_jpeg(path: Path, image: npt.NDArray[np.uint8]) -> None:
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok, "OpenCV always encodes uint8 RGB"
    with atomic_write(path) as file:
        file.write(data.tobytes())


def demo_folder() -> Path:
    """Folder of the demo set: ``data/demo`` of a checkout, else the user's cache, rendered there on first use.

    The cache is ``$XDG_CACHE_HOME/detseg/demo-v1`` (``~/.cache`` if the variable is not set). It is rendered to a
    temporary folder and renamed in one step, so an interrupted or concurrent rendering never leaves an incomplete set.
    """
    shipped = Path(__file__).resolve().parents[3] / "data" / "demo"
    if (shipped / "instances_val.json").is_file():
        return shipped
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detseg"
    target = cache / "demo-v1"
    if (target / "instances_val.json").is_file():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=cache, prefix=".demo-v1."))
    try:
        render(temporary)
        temporary.chmod(0o755)
        temporary.rename(target)
    except OSError:
        if not (target / "instances_val.json").is_file():  # else another process was faster, with the same result
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
