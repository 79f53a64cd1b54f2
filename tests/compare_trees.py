"""Whether two work trees of this project compute the same: small jobs on both, compared bit for bit. Not a test.

    $ python tests/compare_trees.py BEFORE PRESENT [--only NAME ...] [--jobs 2] [--keep FOLDER]

A temporary safety net for a refactoring that must not change one number. Every job is a list of ``detseg`` commands,
with the flags of the tree before, run by one thread in a process of its own for each tree. Equal must be: the loss of
every backward pass, all tensors and headers of checkpoints, all JSON files, and the bytes of converted data and drawn
images. Not compared: what depends on the clock, plots, and printed text. ``--keep`` stores what the first tree gave, by
its commit, the first part of this file, and this machine; the next comparison then runs the second tree only.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import importlib
import io
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

Result = dict[str, Any]
"""What a job gave on one tree: losses, tensors, documents, files; ``failed`` is why it did not end well, else empty."""

LEAVING = 75
"""Exit code of a command that was asked to leave."""
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
ENVIRONMENT["CUDA_VISIBLE_DEVICES"] = ""
ENVIRONMENT["PYTHONSAFEPATH"] = "1"  # the folder of this file has packages called datasets and metrics
CHECKPOINTS = ("best.safetensors", "last.safetensors", "weights.safetensors")
OPTIONS_FILE = """model = "fasterrcnn_mobilenet_v2_fpn_slim"\nweights = "none"\nfreeze = "stem"\nbody_lr = 0.5
last_lr = 2.0\nschedule = "multistep"\nmilestones = [1]\nrois_per_image = 16\naugment = "flip"\n"""


class Job(NamedTuple):
    """What to run in a new folder that has ``data``, written by ``DATA[job.data]``.

    With several ``processes`` under torchrun. After ``stop_after`` backward passes, if not 0, the process asks itself
    to leave, and the first of the ``steps`` (arguments of ``detseg``, or ``interface``) must end with ``LEAVING``.
    """

    data: str
    steps: list[str]
    processes: int = 1
    stop_after: int = 0


def demo_images(demo: Path, folder: Path) -> None:
    """The first images of the demo set, 10 to train on and 5 to validate on, and a file of options beside them."""
    for part, number in (("train", 10), ("val", 5)):
        content = json.loads((demo / f"instances_{part}.json").read_text(encoding="utf-8"))
        content["images"] = content["images"][:number]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
        (folder / part).mkdir(parents=True)
        (folder / f"instances_{part}.json").write_text(json.dumps(content), encoding="utf-8")
        for image in content["images"]:
            shutil.copy(demo / image["file_name"], folder / image["file_name"])
    (folder.parent / "old.toml").write_text(OPTIONS_FILE, encoding="utf-8")


def draw_image(path: Path, seed: int, colour: str) -> None:
    """Noise of 96 x 128 with a filled box of one colour."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (96, 128, 3), dtype=np.uint8)
    x, y = (int(value) for value in rng.integers(10, 50, 2))
    image[y : y + 36, x : x + 40] = {"red": (60, 60, 220), "green": (60, 200, 60), "blue": (220, 80, 80)}[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def class_folders(demo: Path, folder: Path) -> None:
    for index in range(24):
        name = ("red", "green", "blue")[index % 3]
        draw_image(folder / name / f"{index:02}.png", index, name)


def label_fields(demo: Path, folder: Path) -> None:
    """A CSV list with two label columns and two empty cells."""
    rows = [(f"{n:02}.png", ("red", "green", "blue")[n % 3], ("old", "new")[n // 3 % 2]) for n in range(24)]
    for index, (file, colour, _) in enumerate(rows):
        draw_image(folder / file, index, colour)
    rows[0], rows[5] = (rows[0][0], "", rows[0][2]), (rows[5][0], rows[5][1], "")
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows([("filename", "colour", "age"), *rows])


def keypoint_file(demo: Path, folder: Path) -> None:
    """A COCO file with one or two objects of four points in each image, some points hidden or not labelled."""
    annotations: list[dict[str, Any]] = []
    for number in range(1, 9):
        draw_image(folder / "images" / f"{number}.png", number, "red")
        for place in range(1 + number % 2):
            x, y = 14 + 60 * place + number, 20 + 3 * number
            keypoints = [x + 20, y, 2, x, y + 15, number % 3, x + 40, y + 15, 2, x + 20, y + 44, 2 - place]
            if number % 3 == 0:
                keypoints[3:5] = [0, 0]
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": 3, "iscrowd": 0, "area": 900.0}
            seen = sum(value > 0 for value in keypoints[2::3])
            annotations.append(one | {"bbox": [x, y, 40, 44], "keypoints": keypoints, "num_keypoints": seen})
    names = ["top", "left_arm", "right_arm", "bottom"]
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 96, "width": 128} for n in range(1, 9)],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cross", "keypoints": names, "skeleton": [[1, 4], [2, 3]]}],
    }
    (folder / "crosses.json").write_text(json.dumps(content), encoding="utf-8")


DATA = {"demo": demo_images, "folders": class_folders, "fields": label_fields, "points": keypoint_file}
CPU = "--device cpu --workers 0"
SMALL = f"{CPU} --image-size 96 --batch-size 2 --epochs 2"
DETECT = f"{SMALL} --rois-per-image 32 --detections-per-image 20"
TUNED = f"{DETECT} --weights bundled --freeze none"
TRAIN, SLIM = "train data --output run --model", "mobilenet_v3_large_fpn_slim"
MASK, BOX = f"maskrcnn_{SLIM}", f"fasterrcnn_{SLIM}"
HEADS = f"{TRAIN} {MASK} {DETECT} --weights bundled --freeze body"
SCORE, PREDICT = f"evaluate run --json {CPU}", "predict run --device cpu --output drawn"
RESULTS = "evaluate --predictions run/predictions.json --ground-truth data/instances_val.json --json --output scored"
RARE = (
    "--weights bundled --freeze neck --precision bf16 --optimizer adamw --beta2 0.98 --eval-epochs 2 --no-val-loss "
    "--no-norm-eval --schedule step --step-epochs 1 --seed 3 --skip-nonfinite 2 --anchor-sizes [12,24,48,96,192] "
    "--subset 6 --val 0.3 --split stratified"
)
SCENES = "--epoch-steps 3 --eval-epochs 1 --image-size 64 --rois-per-image 8 --val-scenes 4"
CONVERT, CONVERT_POINTS = (
    " && ".join(f"convert data converted-{name} --to {name}" for name in names.split())
    for names in ("coco voc yolo csv labelme cvat via", "coco yolo csv")
)
TABLE = f"""
segment demo
    {TRAIN} {MASK} {TUNED} --mask-rois-per-image 4 --map bolt=star,nut=heart --last-lr 3
    {SCORE} --split all --output all
    {PREDICT} --min-score 0.2 data/val
    {RESULTS}
    {RESULTS}-boxes --iou-type bbox --reference
    {TRAIN} {MASK} {DETECT} --weights run --output next --trainable-layers 2 --classes nut,bolt --map nut=bolt,bolt=
processes demo 2: {TRAIN} {BOX} {TUNED} --batch-size 1
resume demo 1 6
    {TRAIN} {MASK} {TUNED} --checkpoint-every 1 --keep 3
    train --resume run
    train --resume run --epochs 3
classify folders
    {TRAIN} mobilenet_v3_small {SMALL} --weights none --augment strong
    {SCORE}
    {PREDICT} data/red
    {TRAIN} resnet18 {SMALL} --weights none --output again --patience 1
classify-bundled folders: {TRAIN} mobilenet_v3_large {SMALL} --weights bundled
label-fields fields: {TRAIN} mobilenet_v3_small {SMALL} --weights none && {SCORE}
detect demo
    {TRAIN} {BOX} {DETECT} --weights none --augment overhead
    {TRAIN} {BOX} {DETECT} --weights none --output again --split-file run/split.json --seed 1
    {SCORE}
keypoints points
    {TRAIN} keypointrcnn_{SLIM} {DETECT} --weights bundled
    {SCORE}
    {PREDICT} data/images
ssdlite demo: {TRAIN} ssdlite320_mobilenet_v3_large {SMALL} --weights none && {SCORE}
retinanet demo: {TRAIN} retinanet_mobilenet_v2_fpn_slim {SMALL} --weights none
fcos demo: {TRAIN} fcos_mobilenet_v2_fpn_slim {SMALL} --weights none
timm demo: {TRAIN} fasterrcnn {DETECT} --body timm:test_convnext --weights none && {SCORE}
timm-classify folders: {TRAIN} classifier {SMALL} --body timm:test_convnext --weights none --body-lr 0.1 && {SCORE}
cache-memory demo: {HEADS} --cache memory --cached-views 1
cache-disk demo
    {HEADS} --cache disk --cache-dir features
    {HEADS} --cache disk --cache-dir features --output again
cache-off demo: {HEADS} --cache off
probe-then-tune demo: {HEADS} --freeze stem --recipe probe-then-tune --probe-epochs 1
ema demo: {TRAIN} {BOX} {TUNED} --ema 0.9 --accumulate 2
rare-options demo: {TRAIN} {BOX} {DETECT} {RARE}
toml demo: train data --output run --config old.toml {SMALL} && {SCORE}
pretrain demo
    pretrain --output run {CPU} --batch-size 2 --epochs 2 {SCENES}
    pretrain data --output labelled {CPU} --batch-size 2 --epochs 1 --image-size 96 --weights run/weights.safetensors
benchmark demo: benchmark plain data --output plain --seeds [0] --model {BOX} --weights none {SMALL} --batch-size 1
formats demo: inspect data --json --output drawn && {CONVERT}
formats-points points: inspect data --json --output drawn && {CONVERT_POINTS}
interface demo: interface
"""
"""``NAME DATA [PROCESSES [STOP_AFTER]]``, and the steps, divided by && or in lines of their own."""
JOBS: dict[str, Job] = {}
for line in TABLE.strip().splitlines():
    head, _, steps = line.partition(": ") if line[0] != " " else ("", "", line.strip())
    if head:
        key, source, *numbers = head.split()
        JOBS[key] = Job(source, [], *map(int, numbers))
    list(JOBS.values())[-1].steps.extend(filter(None, steps.split(" && ")))


def use_interface() -> int:
    """The notebook of the README, with the public names."""
    import cv2
    import torch
    from safetensors.torch import save_file

    detseg: Any = importlib.import_module("detseg")
    torch.manual_seed(0)
    table = detseg.read("data")
    parts = detseg.split(table, val=0.3, seed=0)
    model = detseg.create_model(MASK, table.class_map, weights="bundled", image_size=96).model
    train_set, val_set = (detseg.Dataset(parts[p], model.preprocessing, task="segment") for p in ("train", "val"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.005, momentum=0.9)
    stats = detseg.train_one_epoch(model, optimizer, detseg.data_loader(train_set, 2, shuffle=True), "cpu", 0)
    metrics = detseg.evaluate(model, detseg.data_loader(val_set, 2), "cpu")
    found: dict[str, Any] = {"losses": stats.losses, "metrics": metrics.to_dict()}
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, "last.safetensors")
    size: dict[str, Any] = {"image_size": 96, "batch_size": 2, "epochs": 1, "device": "cpu", "workers": 0}
    detseg.fit(detseg.TrainConfig(data="data", output="run", model=MASK, weights="bundled", **size))
    predictor = detseg.Predictor("run")
    prediction = predictor("data/val/bench_0001.jpg")
    drawn = detseg.draw(cv2.imread("data/val/bench_0001.jpg"), prediction, predictor.class_map, min_score=0.1)
    found["prediction"] = {name: getattr(prediction, name).tolist() for name in ("boxes", "labels", "scores")}
    found["drawn"] = hashlib.sha256(drawn.tobytes()).hexdigest()
    Path("interface.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


def drive(name: str) -> int:
    """Run a job's steps in this process and the current folder; every loss goes to ``losses.RANK``."""
    import torch

    cli: Any = importlib.import_module("detseg.cli")
    if Path(cli.__file__).parents[1] != Path(os.environ["PYTHONPATH"]):
        raise SystemExit(f"{cli.__file__} is not in {os.environ['PYTHONPATH']}")
    torch.set_num_threads(1)
    job, rank, backward = JOBS[name], os.environ.get("RANK", "0"), torch.autograd.backward
    passes: list[str] = []

    def logged(tensors: Any, *given: Any, **named: Any) -> None:
        passes.append(float(tensors.detach()).hex())
        backward(tensors, *given, **named)
        if len(passes) == job.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    torch.autograd.backward = logged  # torch.Tensor.backward calls it
    for number, step in enumerate(job.steps):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = use_interface() if step == "interface" else cli.main(shlex.split(step))
        Path(f"losses.{rank}").write_text("\n".join(passes), encoding="utf-8")
        if " --json" in step:
            Path(f"printed-{number}.json").write_text(printed.getvalue(), encoding="utf-8")
        if code != (LEAVING if job.stop_after and number == 0 else 0):
            raise SystemExit(f"step {number} ended with {code}: detseg {step}")
    return 0


def run_job(tree: Path, demo: Path, name: str, folder: Path) -> Result:
    """What a job gives on a tree; its folder is new, and gone afterwards."""
    job, began = JOBS[name], time.perf_counter()
    folder.mkdir(parents=True)
    DATA[job.data](demo, folder / "data")
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(job.processes)]
    command = [sys.executable, *(several if job.processes > 1 else ()), str(Path(__file__).resolve()), "--drive", name]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    failed = f"exit code {done.returncode}: " + " | ".join(done.stderr.split("\n")[-5:]) if done.returncode else ""
    result = {} if failed else collect(folder)
    shutil.rmtree(folder)
    return result | {"failed": failed, "took": time.perf_counter() - began}


def collect(folder: Path) -> Result:
    """All that is compared, as it can be written to JSON; the folder's own name is taken out of texts."""
    result: Result = {"losses": [], "tensors": {}, "documents": {}, "files": {}}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith(("data/", "features/")):
            continue
        content = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
        if name.startswith("losses."):
            result["losses"] += content.decode().split()
        elif path.name in CHECKPOINTS:
            result["tensors"][name], result["documents"][name] = checkpoint(path)
        elif name.startswith("converted") or (name.startswith("drawn") and path.suffix != ".json"):
            result["files"][name] = hashlib.sha256(content).hexdigest()
        elif path.suffix in (".json", ".jsonl"):
            texts = content.decode().splitlines() if path.suffix == ".jsonl" else [content.decode()]
            result["documents"][name] = [json.loads(text) for text in texts]
    return result


def checkpoint(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Type, shape and sha256 of each tensor by its name; and the header."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = json.loads((file.metadata() or {}).get("detseg", "{}"))
    sums = {key: f"{t.dtype} {list(t.shape)} {hashlib.sha256(t.tobytes()).hexdigest()}" for key, t in found.items()}
    return sums, {key: value for key, value in header.items() if key not in ("sha256", "versions")}


# What follows only compares: a result that is kept does not depend on it.

RENAMED_TENSORS: dict[str, str] = {}
"""Part of a tensor's place, ``tensors/FILE/NAME``, in the tree before -> in the present one; as compare() prints it."""
RENAMED_KEYS: dict[str, str] = {
    "/position/waited": "/position/epochs_without_improvement",
    "/sums/": "/totals/",
    "drawn/pictures/": "drawn/images/",
}
"""The same for files and the keys of JSON documents and headers, such as ``documents/run/metrics.jsonl/0/KEY``."""
RENAMED_VALUES: dict[str, str] = {"plain torchvision": "torchvision baseline"}
"""Text in such a document -> in the present tree."""
PARTS = ("losses", "tensors", "documents", "files")
IGNORED_KEYS = (
    "schema",
    "first_epoch",
    "seconds",
    "images_per_second",
    "minutes",
    "minutes_to_plain_AP",
    "minutes_to_baseline_AP",
    "notes",
    "correct_counts",
    "train_accuracy",
    "train_accuracy_age",
    "train_accuracy_colour",
)
"""The version of the file format, what depends on the clock, and what was added."""


def flat(value: Any, place: str, old: bool) -> Iterator[tuple[str, str]]:
    """Every leaf of a result with its place; those of the tree before under the names of the present one."""
    if isinstance(value, (dict, list)) and (value or place in PARTS):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in IGNORED_KEYS and not str(key).endswith("finished.json"):
                yield from flat(item, f"{place}/{key}", old)
    elif old:
        if place.endswith("/epoch") and "/position/" not in place and isinstance(value, int):
            value += 1  # counted from 0
        for before, now in (RENAMED_TENSORS if place.startswith("tensors/") else RENAMED_KEYS).items():
            place = place.replace(before, now)
        yield place, repr(RENAMED_VALUES.get(value, value) if isinstance(value, str) else value)
    else:
        yield place, repr(value)


def compare(first: Result, second: Result) -> str:
    """``equal`` or ``DIFFERENT``, and what."""
    for side, result in (("before", first), ("present", second)):
        if result["failed"]:
            return f"DIFFERENT: the tree {side} failed: {result['failed']}"
    counts, wrong = [], []
    for part in PARTS:
        before, now = (dict(flat(side[part], part, side is first)) for side in (first, second))
        bad = [place for place in before | now if before.get(place) != now.get(place)]
        counts.append(f"{len(bad)} of " * bool(bad) + f"{len(before | now)} {part}")
        wrong += [f"\n    {p}: {before.get(p, 'missing'):.60} is now {now.get(p, 'missing'):.60}" for p in bad[:3]]
    return f"{'DIFFERENT' if wrong else 'equal'}: {', '.join(counts)}{''.join(wrong)}"


def kept_folder(keep: Path | None, tree: Path) -> Path | None:
    """Where results of this very tree, jobs and machine are kept; None without ``--keep``, or if files are changed."""
    status = subprocess.run(["git", "-C", tree, "status", "--porcelain"], capture_output=True, text=True, check=True)
    if keep is None or status.stdout:
        return None
    commit = subprocess.run(["git", "-C", tree, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    jobs = Path(__file__).read_text(encoding="utf-8").partition("\n# What follows only compares")[0]
    processor = {text for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith(("model", "flags"))}
    made_by = [jobs, platform.python_version(), version("torch"), version("torchvision"), *sorted(processor)]
    return keep / f"{commit[:12]}-{hashlib.sha256(repr(made_by).encode()).hexdigest()[:12]}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare two work trees of this project bit for bit.")
    parser.add_argument("before", type=Path)
    parser.add_argument("present", type=Path)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS), metavar="NAME", help=", ".join(JOBS))
    parser.add_argument("--jobs", type=int, default=2, help="at a time, each of one thread")
    parser.add_argument("--keep", type=Path, help="folder of the first tree's results, for the next time")
    given = parser.parse_args()
    before, present = given.before.resolve(), given.present.resolve()
    kept, demo, all_equal = kept_folder(given.keep, before), before / "data" / "demo", True
    files = {name: kept / f"{name}.json" for name in given.only} if kept else {}
    print(f"results of {before} are kept in {kept}" if kept else f"results of {before} are not kept", flush=True)
    runs: dict[tuple[str, str], Future[Result]] = {}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(given.jobs) as pool:
        for name in given.only:
            for side, tree in (("before", before), ("present", present)):
                if side == "present" or name not in files or not files[name].exists():
                    runs[name, side] = pool.submit(run_job, tree, demo, name, Path(scratch, side, name))
        for name in given.only:
            now = runs[name, "present"].result()
            if (name, "before") in runs:
                then, how = runs[name, "before"].result(), ""
                if kept and not then["failed"]:
                    kept.mkdir(parents=True, exist_ok=True)
                    files[name].write_text(json.dumps(then), encoding="utf-8")
            else:
                then, how = json.loads(files[name].read_text(encoding="utf-8")), " kept"
            said = compare(then, now)
            all_equal = all_equal and said.startswith("equal")
            print(f"{name:16} ({then['took']:3.0f} s{how}, {now['took']:3.0f} s) {said}", flush=True)
    print("all equal" if all_equal else "NOT all equal")
    return 0 if all_equal else 1


if __name__ == "__main__":
    sys.exit(drive(sys.argv[2]) if sys.argv[1:2] == ["--drive"] else main())
