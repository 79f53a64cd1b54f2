"""Define the options of all commands but ``train`` and ``benchmark``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detseg.errors import DataError
from detseg.options.data import VALUE_LIMIT, DataConfig
from detseg.options.field import MAX_SEED, MAX_WORKERS, check_ranges, option
from detseg.options.tiles import UsedTileOptions


@dataclass(frozen=True)
class PretrainConfig:
    """Options of ``pretrain``."""

    data: str = option(
        "", "large labelled data set to train on", "scenes that are rendered during training", value="PATH"
    )
    output: str = option("runs/pretrain", "folder to write", value="FOLDER")
    resume: str | None = option(None, "folder to resume from its latest checkpoint", value="FOLDER")
    model: str = option(
        "maskrcnn_mobilenet_v3_large_fpn_slim", "architecture", "that of the bundled weights", value="NAME"
    )
    weights: str = option(
        "none", "starting weights: coco, imagenet, bundled or a file", "from scratch", value="NAME|FILE"
    )
    epochs: int = option(24, "epochs to train", "an hour on two cores", least=1, limit=1_000_000)
    epoch_steps: int = option(200, "steps per epoch, after which a checkpoint is written", least=1, limit=1_000_000)
    eval_epochs: int = option(8, "epochs between two evaluations", least=1, limit=1_000_000)
    batch_size: int = option(16, "scenes per step, of all processes together", least=1, limit=100_000)
    image_size: int = option(160, "sides of a scene in pixels", least=32, limit=16_384)
    rois_per_image: int = option(48, "RoIs per scene in the head's loss", least=1, limit=1_000_000)
    mask_rois_per_image: int | None = option(
        None, "maximum number of these RoIs in the mask loss", "all that match an object", least=1, limit=1_000_000
    )
    lr: float = option(1.5e-3, "learning rate of adamw", above=0, limit=1_000)
    val_scenes: int = option(200, "scenes that the weights are evaluated on", least=1, limit=1_000_000)
    workers: int = option(
        0, "rendering processes per training process", "the training process renders", least=0, limit=MAX_WORKERS
    )
    device: str | None = option(None, "cuda, cuda:1 or cpu", "cuda if available", value="DEVICE")
    seed: int = option(0, "seed of all scenes and random numbers", least=0, limit=MAX_SEED)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class EvaluateConfig(UsedTileOptions, DataConfig):
    """Options of ``evaluate``."""

    data: str = option("", "folder or annotation file of labelled images", "the data of the run", value="PATH")
    run: str = option("", "run folder or checkpoint file", value="PATH", common=True)
    split: Literal["train", "val", "test", "all"] = option(
        "val", "split to evaluate", "data other than the run's is used as a whole unless it has this split", common=True
    )
    predictions: str | None = option(
        None, "COCO results file to evaluate instead of a model", value="FILE", common=True
    )
    ground_truth: str | None = option(None, "COCO annotation file for --predictions", value="FILE", common=True)
    iou_type: Literal["bbox", "segm", "keypoints"] | None = option(
        None,
        "what is compared in --predictions: boxes (bbox), masks (segm) or keypoints",
        "segm if they have masks, keypoints if they have keypoints, else bbox",
        common=True,
    )
    max_dets: int | None = option(
        None,
        "maximum number of detections counted per class and image",
        "100 (keypoints 20) as in COCO; for a run at least the number of objects in the most crowded image",
        least=1,
        common=True,
        limit=1_000_000,
    )
    reference: bool = option(
        False,
        "evaluate --predictions with pycocotools itself, using the ids of the file",
        "the same numbers, faster, but an annotation with id 0 can be matched",
        common=True,
    )
    loss: bool = option(False, "also compute the losses, as in training", common=True)
    figures: bool = option(False, "also write figures (curves, confusion, mistakes) to the folder figures", common=True)
    coco_lines: bool = option(False, "also print the twelve lines of pycocotools (AP and AR)", common=True)
    json: bool = option(False, "print only the metrics, as JSON", "a table", common=True)
    output: str | None = option(
        None, "folder for metrics.json and predictions.json", "<run>/evaluate-<split>", value="FOLDER", common=True
    )
    batch_size: int | None = option(
        None,
        "images per batch",
        "that of the run, so that the metrics are equal to the run's",
        least=1,
        limit=100_000,
        common=True,
    )
    workers: int | None = option(
        None, "loader worker processes", "cores minus one, at most 4; 0 on CPU", least=0, limit=MAX_WORKERS, common=True
    )
    device: str | None = option(None, "cuda, cuda:1 or cpu", "cuda if available", value="DEVICE", common=True)


PredictOutput = Literal[
    "coco", "jsonl", "csv", "images", "crops", "masks", "class-masks", "labelme", "yolo", "cvat"
]  # fmt: skip


@dataclass(frozen=True)
class PredictConfig(UsedTileOptions):
    """Options of ``predict``."""

    run: str = option("", "run folder, checkpoint file or exported .onnx file", value="PATH")
    images: list[str] = option(
        [],
        "image files, folders, patterns such as 'photos/**/*.jpg', or - for a list on standard input; or videos, or "
        "camera:0",
        value="PATH",
    )
    output: str = option(
        "out",
        "folder for predictions.jsonl, predictions.json and images; of an earlier predict, they are replaced",
        value="FOLDER",
    )
    outputs: list[PredictOutput] = option(
        ["coco", "images"],
        "what is written: results as coco, jsonl or csv; drawn images; crops of the objects; PNG masks (of objects) or "
        "class-masks; labelme, yolo or cvat files to correct",
        "coco,images; jsonl is always written",
        value="NAME,NAME,...",
    )
    min_score: float = option(
        0.5,
        "minimum score of predictions that are drawn, cut out, or written as masks or labelme, yolo, cvat",
        "coco, jsonl and csv contain all",
        least=0,
        most=1,
        example=0.5,
    )
    draw: bool = option(True, "write images with drawn predictions; --no-draw is the same as --outputs without images")
    frames: str | None = option(
        None, "frames of a video, from 0; STOP is not included", "all; of a camera 1000", value="START:STOP"
    )
    stride: int = option(1, "of a video or camera, predict every n-th frame", least=1, limit=1_000_000)
    then: str | None = option(
        None,
        "classifier (run folder, checkpoint or exported file) that classifies the pixels of each detection",
        "detections keep the class of the detector only",
        value="RUN",
    )
    flip: bool = option(False, "average the outputs for each image and its mirror image", "half as fast")
    batch_size: int | None = option(
        None, "images that the network gets together", "1; on CUDA 8", least=1, limit=100_000
    )
    workers: int | None = option(
        None,
        "threads that decode the next images while the network runs; 0 for none",
        "one per core, at most 8",
        least=0,
        limit=MAX_WORKERS,
    )
    device: str | None = option(None, "cuda, cuda:1 or cpu", "cuda if available", value="DEVICE")
    rename: str | list[str] | dict[str, str] | None = option(
        None, "new class names, such as object=bolt", "the names in the run", value="OLD=NEW", repeated=True
    )
    follow_links: bool = option(
        False, "follow links in the folders that point outside them", "they are left out and named"
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class ExportConfig:
    """Options of ``export``."""

    run: str = option("", "run folder or checkpoint file", value="PATH")
    output: str | None = option(None, "file to write", "model.onnx in the run folder", value="FILE")
    to: Literal["onnx", "onnx-int8"] = option("onnx", "format of the file: float32, or int8 where it costs little")
    max_loss: float = option(
        0.02,
        "largest share of AP (or accuracy on the validation images) that int8 may cost; beyond it float32 is kept",
        least=0,
        most=1,
        example=0.02,
    )
    calibration_images: int = option(32, "number of training images that the ranges of int8 are taken from", least=1)
    data: str | None = option(
        None, "data to compare the file with torch on", "the validation images of the run", value="PATH"
    )
    images: int = option(8, "number of images to compare on", least=1)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class SelfcheckConfig:
    """Options of ``selfcheck``."""

    run: str = option("", "run folder or checkpoint file", value="PATH")
    file: str | None = option(
        None, "exported file of the run", "model.onnx in the run folder, if it is there", value="FILE"
    )
    url: str | None = option(
        None, "address of a server of the run, or of the exported file", "no server is checked", value="URL"
    )
    token: str | None = option(None, "secret of the server", "that of the variable DETSEG_TOKEN", value="SECRET")
    data: str | None = option(None, "data to predict", "the validation images of the run", value="PATH")
    images: int = option(8, "number of images", least=1)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class InspectConfig(DataConfig):
    """Options of ``inspect``."""

    output: str | None = option(
        None, "folder for sheet.jpg, sheet.html and summary.json", "inspect-<data>", value="FOLDER"
    )
    fix: str | None = option(
        None,
        "new folder for a repaired copy of the data; every change is listed in changes.json",
        "the data is only reported on",
        value="FOLDER",
        common=True,
    )
    to: Literal["coco", "voc", "yolo", "csv", "labelme", "cvat", "via"] | None = option(
        None, "format of the repaired copy (with --fix)", "that of the data, or coco if it cannot be written"
    )
    image_size: int | None = option(
        None,
        "input size, the shorter side in pixels, at which objects may be too small",
        "the default of train on a CPU",
        least=32,
        limit=10_000,
    )
    value_range: list[float] | None = option(
        None,
        "lowest and highest value of images with more than 8 bits per channel, such as [0,4095], which become 0 "
        "and 255",
        "that of the training split, or of all images",
        value="LOW,HIGH",
        least=-VALUE_LIMIT,
        most=VALUE_LIMIT,
    )
    records: int = option(16, "number of images on the contact sheet", least=1, limit=10_000)
    per_class: bool = option(False, "show images of each class in each split, the rarest class first", "random images")
    json: bool = option(False, "print only the summary, as JSON", "a table")
    seed: int = option(
        0, "seed that selects the images on the sheet", "the same ones each time", least=0, limit=MAX_SEED
    )


@dataclass(frozen=True)
class ConvertConfig(DataConfig):
    """Options of ``convert``."""

    data: str = option("", "folder or annotation file of labelled images", value="PATH")
    output: str = option("", "new folder to write", value="FOLDER")
    to: Literal["coco", "voc", "yolo", "csv", "labelme", "cvat", "via", "createml"] = option("coco", "output format")


@dataclass(frozen=True)
class DescribeConfig:
    """Options of ``describe``."""

    model: str = option("", "run folder, checkpoint file, exported .onnx file, or model name", value="RUN|NAME")
    depth: int = option(2, "levels of modules in the table", "JSON has all", least=1)
    class_count: int | None = option(
        None,
        "number of classes, for a model name",
        "that of the published weights: 90, 1000, or 1 with keypoints",
        least=1,
    )
    image_size: int | None = option(
        None, "length of the shorter side in pixels, for a model name", "that of the published weights", least=32
    )
    freeze: Literal["none", "stem", "backbone", "neck", "rpn"] | None = option(
        None, "parts to freeze", "those of the run; of a model name none"
    )
    json: bool = option(False, "print only JSON", "a table")

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class ServeConfig:
    """Options of ``serve``."""

    run: str = option("", "run folder, checkpoint file or exported .onnx file", value="PATH")
    then: str | None = option(
        None,
        "classifier (run folder, checkpoint or exported file) that classifies the pixels of each detection",
        "detections keep the class of the detector only",
        value="RUN",
    )
    host: str = option(
        "127.0.0.1", "address to listen on", "this machine only; 0.0.0.0 is all networks", value="ADDRESS"
    )
    port: int = option(8000, "port to listen on; 0 is a free one", least=0, most=65535)
    device: str | None = option(None, "cuda, cuda:1 or cpu", "cuda if available", value="DEVICE")
    token: str | None = option(
        None,
        "secret that requests must have as Authorization: Bearer SECRET",
        "that of the variable DETSEG_TOKEN, which other users of the machine cannot see; without both, none is needed",
        value="SECRET",
    )
    root_path: str = option("", "path at which a proxy offers the server, such as /parts", "/", value="PATH")
    batch_size: int = option(8, "maximum number of images that are predicted together", least=1)
    batch_window: float = option(
        5, "milliseconds that an image waits for others to be predicted together", least=0, most=10_000
    )
    queue_size: int = option(64, "maximum number of images that wait; more requests are refused (503)", least=1)
    deadline: float = option(30, "seconds from the upload to the answer, else it is an error (504)", above=0)
    upload_seconds: float = option(30, "seconds that an upload may take (408)", above=0)
    max_megabytes: float = option(20, "maximum size of a request in MiB (413)", "a large photo", above=0, most=1024)
    max_megapixels: float = option(64, "maximum size of an image in millions of pixels (413)", above=0, most=100)
    max_files: int = option(16, "maximum number of images per request", least=1)
    connections: int = option(512, "maximum number of open connections", least=1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.max_files > self.queue_size:
            raise DataError(
                f"--max-files {self.max_files}: a request of as many images never fits into --queue-size "
                f"{self.queue_size}; make the queue larger"
            )
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise DataError(f"--root-path {self.root_path!r}: it must begin with / and not end with it, such as /parts")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise DataError("--token: it must consist of visible ASCII characters, as headers do")


@dataclass(frozen=True)
class ClientConfig:
    """Options of ``client``."""

    url: str = option("", "address of the server, such as http://127.0.0.1:8000", value="URL")
    images: list[str] = option([], "image files or folders", value="PATH")
    output: str | None = option(
        None, "folder for images with drawn predictions", "print a line of JSON per image", value="FOLDER"
    )
    masks: Literal["rle", "polygon", "none"] = option("rle", "form of the masks in the JSON")
    min_score: float = option(0.5, "minimum score of detections", least=0, most=1, example=0.5)
    top: int = option(5, "number of classes of a classifier, the most probable first", least=1)
    token: str | None = option(None, "secret of the server", "that of the variable DETSEG_TOKEN", value="SECRET")
    timeout: float = option(60, "seconds to wait for an answer", above=0)

    def __post_init__(self) -> None:
        check_ranges(self)
