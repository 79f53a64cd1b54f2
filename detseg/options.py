"""Every option of the commands: its name, type, default, and why that default. Frozen dataclasses, nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from detseg.errors import DataError
from detseg.old_names import accepts_old_options
from detseg.tasks import Task

Format = Literal["coco", "voc", "yolo", "cvat", "labelme", "via", "csv", "masks", "folders"]


def option(default: Any, text: str) -> Any:
    """A dataclass field whose ``help`` is shown by the command line."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class DataConfig:
    """Where the data is and how it is read. ``annotations`` becomes ``data``."""

    data: str = option(
        "", "folder or annotation file of labelled images. Default: the demo set that comes with this project"
    )
    format: Format | None = option(None, "annotation format. Default: found by looking")
    images: str | None = option(None, "folder of the images. Default: looked for beside the annotations")
    annotations: str | None = option(None, "annotation file or folder. Default: DATA, which says the same")
    val_annotations: str | None = option(
        None, "annotations of the validation part; the data is then the training part. Default: the data is divided"
    )
    one_based: bool = option(
        False, "Pascal VOC counts pixels from 1. Default false: most tools write VOC files that count from 0"
    )
    mask_values: Literal["instance", "class", "binary"] | None = option(
        None,
        "what a mask PNG's values mean: ids of instances, ids of classes (255 = ignore), or one object a file. "
        "Default: guessed from the files and said",
    )
    classes: str | list[str] | None = option(
        None, "comma-separated class names: selects and orders them, or names the values of masks. Default: all"
    )
    bad_instances: Literal["drop", "error"] = option(
        "drop", "what becomes of empty boxes. Default drop: they are counted and named, and the rest can be used"
    )

    def __post_init__(self) -> None:
        if self.annotations and self.data and self.annotations != self.data:
            raise DataError(f"data {self.data} and --annotations {self.annotations}: give one of them")
        if self.val_annotations and not (self.annotations or self.data):
            raise DataError("--val-annotations without --annotations; name the training part as well")
        object.__setattr__(self, "data", self.data or self.annotations or "")
        object.__setattr__(self, "annotations", None)


@accepts_old_options
@dataclass(frozen=True)
class TrainConfig(DataConfig):
    """Options of ``train``. None means: picked for the data and the machine, and printed."""

    output: str | None = option(None, "run folder to write. Default: runs/<data>-<model>, numbered if that exists")
    resume: str | None = option(None, "run folder to continue from its last checkpoint")
    replay: str | None = option(
        None,
        "show the losses of a saved batch that was not finite, image by image, and do nothing else. Default: train",
    )

    task: Task | None = option(
        None,
        "what to learn. Default: keypoints if there are any, segment if there are masks, detect if boxes, classify if "
        "class folders",
    )
    model: str | None = option(
        None,
        "architecture. Default: Mask, Faster or Keypoint R-CNN, ResNet-50 on CUDA, MobileNetV3 on CPU, where it is 5 "
        "times faster; for classes ResNet-50 or ResNet-18",
    )
    backbone: str | None = option(
        None,
        "feature extractor for --model fasterrcnn, maskrcnn, keypointrcnn or classifier: timm:NAME, such as "
        "timm:convnext_atto. Default: the one in the model's name",
    )
    weights: str | None = option(
        None,
        "starting weights: coco, imagenet, bundled (they come with detseg), none, or a file. Default: coco (classify: "
        "imagenet); bundled for the demo set, which must run without a network",
    )
    class_transfer: str | list[str] | None = option(
        None,
        "comma-separated CLASS=CLASS OF THE WEIGHTS, such as worker=person, or bolt= for none: whose rows of the last "
        "layers a class starts with. Default: those of the class of the same name or a listed synonym",
    )
    freeze: Literal["none", "stem", "backbone", "neck", "rpn"] | None = option(
        None,
        "freeze all parts up to this one. Default with pretrained weights: stem on CUDA, backbone on CPU, "
        "where it halves the time; none from scratch",
    )
    trainable_layers: int | None = option(
        None, "torchvision's way to say the same: 0 to 5 backbone layers are trained. Not together with --freeze"
    )
    norm_eval: bool | None = option(
        None,
        "the backbone's norm layers keep their statistics while their weights learn, which also takes less time. Default: "
        "true for pretrained detectors in batches below 16, from which BatchNorm learns badly; else false",
    )
    image_size: int | None = option(
        None, "length of the shorter side in pixels. Default: what the weights were trained with, 480 on CPU"
    )
    anchor_sizes: list[int] | None = option(
        None,
        "sides of the anchors in pixels of the network's input, one for each map, such as [16,32,64,128,256]. Default: "
        "the architecture's; fitted to the boxes when the RPN starts from scratch",
    )
    rois_per_image: int | None = option(
        None, "boxes per image for the head's loss. Default 128: torchvision's 512 doubles the time and gains nothing"
    )
    mask_rois_per_image: int | None = option(
        None,
        "most of these boxes, at random, whose masks are in the loss: those of one object teach nearly the same. "
        "Default: all that match an object, torchvision's way; demo: 6",
    )
    detections_per_image: int | None = option(
        None, "most detections an image. Default: 100, or 1.5 times the most crowded training image; demo: 30"
    )

    split: Literal["auto", "stratified", "group", "source"] = option(
        "auto", "how to divide the data. Default auto: the source's own split, else by group, else stratified"
    )
    val: float = option(0.2, "fraction for validation. Default 0.2")
    test: float | None = option(None, "fraction kept for a final test. Default: 0.15 from 100 images up, else 0")
    group: str | None = option(
        None,
        "keeps images that belong together (frames of one video) on one side: a CSV file of file,group, or a regular "
        "expression on the file name whose first bracket is the group",
    )
    split_file: str | None = option(None, "a split.json of an earlier run, to divide the data in the same way")
    subset: int | None = option(None, "train on this many images only. Default: all")

    augment: Literal["none", "flip", "light", "aerial", "strong"] | None = option(
        None,
        "augmentation preset. Default light: small sets overfit without; it mirrors left and right. aerial turns as "
        "well, for what is seen from above and has no upper side (demo)",
    )
    epochs: int | None = option(None, "passes over the data. Default 10, as the published Penn-Fudan run; demo: 16")
    minutes: float | None = option(
        None,
        "wall minutes for training and the evaluation and checkpoint after each epoch: picks as many epochs, at least "
        "1, as fit by speeds that are measured before. Not together with --epochs. Default: no limit",
    )
    batch_size: int | None = option(
        None,
        "images per step of a process; 0: as many as a GPU has memory for, measured. Default: 4 on CUDA, 2 on CPU; "
        "classify: 32 and 16; never more than there are images",
    )
    optimizer: Literal["sgd", "adamw"] | None = option(
        None, "Default sgd, as all published R-CNN weights; adamw from scratch, where it needs no tuned rate"
    )
    lr: float | None = option(
        None,
        "learning rate. Default: tied to the batch: 0.0025 an image for sgd, at most 0.02; 5e-4 for adamw; demo: 1e-3",
    )
    momentum: float = option(0.9, "of sgd. Default 0.9, torchvision's")
    weight_decay: float | None = option(None, "Default 5e-4 for sgd (the Penn-Fudan run's), 0.05 for adamw")
    backbone_lr_mult: float = option(1.0, "factor on the backbone's learning rate. Default 1: torchvision's way")
    head_lr_mult: float | None = option(
        None,
        "factor on the learning rate of the last layers, whose rows for new classes start from scratch. Default 1: "
        "torchvision's way; demo: 3",
    )
    beta2: float | None = option(
        None,
        "of adamw: it forgets gradients after about 1/(1-beta2) updates. Default 0.999, usual; demo: 0.98, its run has "
        "a few hundred updates",
    )
    schedule: Literal["constant", "step", "multistep", "exponential", "cosine"] = option(
        "cosine", "of the learning rate. Default cosine: no milestones to tune"
    )
    milestones: list[int] | None = option(None, "epochs at which multistep lowers the rate. Default: 2/3 and 8/9")
    step_epochs: int = option(3, "epochs between two steps of the step schedule. Default 3, the Penn-Fudan run's")
    gamma: float = option(0.1, "factor of step, multistep and exponential (there per epoch). Default 0.1")
    warmup_steps: int | None = option(
        None, "linear warm-up. Default: one epoch, at most 1000 steps and a tenth of the run; it prevents NaN"
    )
    clip_norm: float = option(10.0, "limit of the gradient's norm, 0 for none. Default 10: only spikes are cut")
    patience: int = option(0, "stop after so many epochs without a better validation number. Default 0: never")
    accumulate: int = option(1, "batches whose gradients are averaged for one update. Default 1")
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", "what a step computes in; weights stay float32. Default fp32: the same numbers everywhere"
    )
    ema: float | None = option(
        None,
        "decay of an average of the weights, such as 0.999; it is what is evaluated and kept as best. Default: none",
    )
    skip_nonfinite: int = option(
        0, "updates in a row that may be left out because a loss is not finite. Default 0: the run stops and says why"
    )
    checkpoint_every: str = option(
        "10m", "steps (500) or minutes (10m) between checkpoints inside an epoch; 0 for none. Default 10m"
    )
    keep_checkpoints: int = option(
        2, "number of recent checkpoints to keep. Default 2: the older one is a fallback if the newest is corrupt"
    )
    eval_epochs: int | None = option(
        None,
        "epochs between two evaluations; the last epoch is always evaluated. Default 1; demo: 4",
    )
    val_loss: bool = option(True, "compute the validation loss at each evaluation. Default true: it shows overfitting")

    linear_probe_epochs: int | Literal["half"] | None = option(
        None,
        "first train the heads on the frozen backbone, whose features are computed once, for this many of the --epochs; "
        "then train what --freeze leaves, at a lower rate (LP-FT, Kumar et al. 2022). half: half of all epochs. "
        "Default: no linear probing",
    )
    finetune_lr_mult: float = option(0.1, "factor on the learning rate after the probe. Default 0.1")
    cache: Literal["auto", "memory", "disk", "off"] = option(
        "auto",
        "where features of a frozen backbone are kept, so that it runs once for each view of an image. Default auto: in "
        "memory if they fit, else on disk; on disk other runs find them too",
    )
    cached_views: int = option(
        0, "views drawn from --augment that are kept besides the plain and the mirrored one. Default 0"
    )
    cache_dtype: Literal["float16", "float32"] = option(
        "float16", "of the features that are kept. Default float16: half the memory; float32 changes no number"
    )
    cache_limit: float | None = option(
        None,
        "GB of features that are kept; the rest is computed in every step. Default: half of the free memory; on disk "
        "20, and at most half of what is free",
    )
    cache_dir: str | None = option(None, "folder of the features on disk. Default: ~/.cache/detseg/features")

    decoded_limit: float = option(
        4.0,
        "GB of decoded images in a file that the run's loader processes share, 0 for none. Default 4; the rest is "
        "decoded in every epoch",
    )

    workers: int | None = option(
        None, "loader processes. Default: cores minus one, at most 4; 0 on CPU, which has none to spare"
    )
    device: str | None = option(None, "cuda, cuda:1, cpu, ... Default: cuda if there is one")
    seed: int = option(0, "every random number follows from it. Default 0")


@dataclass(frozen=True)
class PretrainConfig:
    """Options of ``pretrain``."""

    data: str = option("", "large labelled set to train on. Default: scenes that are rendered on the way")
    output: str = option("runs/pretrain", "folder to write. Default runs/pretrain")
    resume: str | None = option(None, "folder to continue from its last checkpoint")
    model: str = option("maskrcnn_mobilenet_v3_large_fpn_slim", "architecture. Default: the one that is bundled")
    weights: str = option("none", "what to go on from: coco, imagenet, bundled or a file. Default none: from scratch")
    epochs: int = option(24, "rounds. Default 24: an hour on two cores")
    epoch_steps: int = option(200, "updates in a round, after which a checkpoint is written. Default 200")
    eval_epochs: int = option(8, "rounds between two evaluations. Default 8")
    batch_size: int = option(16, "scenes per update, of all processes together. Default 16")
    image_size: int = option(160, "sides of a scene in pixels. Default 160")
    rois_per_image: int = option(48, "boxes per scene for the head's loss. Default 48")
    mask_rois_per_image: int | None = option(None, "most of these whose masks are in the loss. Default: all with one")
    lr: float = option(1.5e-3, "of adamw. Default 1.5e-3")
    val_scenes: int = option(200, "scenes that the weights are scored on. Default 200")
    workers: int = option(0, "processes that render, for each that trains. Default 0: the same")
    device: str | None = option(None, "cuda, cpu, ... Default: cuda if there is one")
    seed: int = option(0, "every scene and number follows from it. Default 0")


@dataclass(frozen=True)
class EvaluateConfig(DataConfig):
    """Options of ``evaluate``."""

    run: str = option("", "run folder or checkpoint file")
    split: Literal["train", "val", "test", "all"] = option(
        "val", "which part of the data. Default val; other data than the run's is taken whole unless it has this split"
    )
    predictions: str | None = option(None, "COCO results file to score instead of a model")
    ground_truth: str | None = option(None, "COCO annotation file for --predictions")
    iou_type: Literal["bbox", "segm", "keypoints"] | None = option(
        None, "what --predictions are compared by. Default: masks if they have masks, keypoints if those, else boxes"
    )
    max_dets: int | None = option(
        None,
        "detections of a class in an image that count. Default 100 (keypoints 20) as COCO; for a run at least the "
        "objects of the most crowded image",
    )
    reference: bool = option(
        False,
        "score --predictions by pycocotools itself, with the ids of the file. Default false: the same numbers, faster, "
        "but an annotation with id 0 can be found",
    )
    json: bool = option(False, "print the metrics as JSON and nothing else. Default false: a table")
    output: str | None = option(None, "folder for metrics.json and predictions.json. Default: <run>/evaluate-<split>")
    batch_size: int | None = option(
        None, "images at a time. Default: the run's own, so that its numbers come out equal"
    )
    workers: int | None = option(None, "loader processes. Default: cores minus one, at most 4; 0 on CPU")
    device: str | None = option(None, "cuda, cpu, ... Default: cuda if there is one")


@dataclass(frozen=True)
class PredictConfig:
    """Options of ``predict``."""

    run: str = option("", "run folder or checkpoint file")
    images: list[str] = field(default_factory=list, metadata={"help": "image files or folders"})
    output: str = option("out", "folder for predictions.json and images. Default out")
    min_score: float = option(0.5, "lowest score that is drawn. Default 0.5; predictions.json holds all")
    draw: bool = option(True, "draw images. Default true")
    device: str | None = option(None, "cuda, cpu, ... Default: cuda if there is one")


@dataclass(frozen=True)
class InspectConfig(DataConfig):
    """Options of ``inspect``."""

    output: str | None = option(None, "folder for sheet.jpg and summary.json. Default: inspect-<data>")
    records: int = option(16, "images on the sheet. Default 16")
    json: bool = option(False, "print the summary as JSON and nothing else. Default false: a table")
    seed: int = option(0, "chooses the images on the sheet. Default 0: the same ones each time")


@dataclass(frozen=True)
class ConvertConfig(DataConfig):
    """Options of ``convert``."""

    output: str = option("", "new folder to write. No default")
    to: Literal["coco", "voc", "yolo", "csv", "labelme", "cvat", "via"] = option("coco", "format. Default coco")


@accepts_old_options
@dataclass(frozen=True)
class BenchmarkConfig(TrainConfig):
    """Options of ``benchmark``: those of ``train``, and what to compare with."""

    what: Literal["baseline", "transfer", "frozen", "step", "evaluate", "predict", "loader", "index", "all"] = option(
        "baseline",
        "what to compare. Default baseline: AP of a torchvision training loop; transfer: starting weights at equal "
        "budgets; the others: speed of each part against its baseline, on generated data; all: of all these",
    )
    seeds: list[int] | None = option(None, "one run each, such as [0,1]. Default [0,1,2]")
    budgets: list[float] | None = option(None, "transfer: minutes of training, each for every arm. Default [3,20]")
    arms: str | list[str] | None = option(
        None,
        "transfer: comma-separated; of scratch, bundled frozen, bundled fine-tuned, imagenet frozen and imagenet "
        "fine-tuned. Default: all, those of imagenet with --imagenet",
    )
    bundled: str = option("bundled", "transfer: weights of the bundled arms. Default: those that come with the package")
    imagenet: str | None = option(
        None, "transfer: a classification state dict of MobileNetV2. Default: no arms of imagenet"
    )


def to_toml(config: object) -> str:
    """A flat TOML text of a config; None is left out, because TOML has none."""
    lines = []
    for item in fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if value is not None:
            # JSON's numbers, booleans, lists and escaped strings are TOML's too
            lines.append(f"{item.name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def to_flags(config: object, *, besides: tuple[str, ...] = ()) -> list[str]:
    """The options of a config that are not its class's defaults, as words of a command line; not those ``besides``."""
    words = []
    default = type(config)()
    for item in fields(config):  # type: ignore[arg-type]
        value, flag = getattr(config, item.name), item.name.replace("_", "-")
        if item.name in besides or value == getattr(default, item.name):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))]
    return words
