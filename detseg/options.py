"""Define every option of the commands: name, type, default and the reason for it. Frozen dataclasses, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from detseg.errors import DataError
from detseg.old_names import accepts_old_options
from detseg.tasks import Task

Format = Literal["coco", "voc", "yolo", "cvat", "labelme", "via", "csv", "masks", "folders"]


def option(default: Any, text: str) -> Any:
    """Return a dataclass field whose help text ``--help`` prints."""
    return field(default=default, metadata={"help": text})


VALUE_RANGE = (
    "lowest and highest value of images with more than 8 bits per channel, such as [0,4095], which become 0 and 255; "
    "the model keeps it. Default: the range of the training images (inspect: of the training split or all images)"
)


@dataclass(frozen=True)
class DataConfig:
    """Location and format of the data. ``annotations`` is stored as ``data``."""

    data: str = option(
        "", "folder or annotation file of labelled images. Default: the demo set that comes with this project"
    )
    format: Format | None = option(None, "annotation format. Default: detected from the files")
    images: str | None = option(None, "folder of the images. Default: searched for beside the annotations")
    annotations: str | None = option(None, "annotation file or folder. Default: DATA, which has the same meaning")
    val_annotations: str | None = option(
        None, "annotations of the validation split; DATA is then the training split. Default: DATA is split"
    )
    one_based: bool = option(
        False, "Pascal VOC pixels are counted from 1. Default false: most tools write VOC files that count from 0"
    )
    mask_values: Literal["instance", "class", "binary"] | None = option(
        None,
        "meaning of the values of mask PNGs: instance ids, class ids (255 = ignore), or binary (one object per file). "
        "Default: inferred from the files and printed",
    )
    classes: str | list[str] | None = option(
        None, "comma-separated class names: select and order the classes, or name the values of masks. Default: all"
    )
    bad_instances: Literal["drop", "error"] = option(
        "drop", "what to do with empty boxes. Default drop: they are counted and listed, and the others are used"
    )

    def __post_init__(self) -> None:
        if self.annotations and self.data and self.annotations != self.data:
            raise DataError(f"data {self.data} and --annotations {self.annotations}: give only one of them")
        if self.val_annotations and not (self.annotations or self.data):
            raise DataError("--val-annotations without --annotations; give the annotations of the training split too")
        object.__setattr__(self, "data", self.data or self.annotations or "")
        object.__setattr__(self, "annotations", None)


@accepts_old_options
@dataclass(frozen=True)
class TrainConfig(DataConfig):
    """Options of ``train``. None means: chosen automatically for the data and the machine, and printed."""

    output: str | None = option(None, "run folder to write. Default: runs/<data>-<model>, numbered if that exists")
    resume: str | None = option(None, "run folder to resume from its latest checkpoint")
    replay: str | None = option(
        None,
        "file of a saved batch whose loss was not finite: print its losses image by image and exit. Default: train",
    )

    task: Task | None = option(
        None,
        "task to train for. Default: keypoints if there are any, segment if there are masks, detect if there are "
        "boxes, classify if there are class folders",
    )
    model: str | None = option(
        None,
        "architecture. Default: Mask, Faster or Keypoint R-CNN, with ResNet-50 on CUDA and MobileNetV3 on CPU, where "
        "it is 5 times faster; classify: ResNet-50 or ResNet-18",
    )
    backbone: str | None = option(
        None,
        "backbone for --model fasterrcnn, maskrcnn, keypointrcnn or classifier: timm:NAME, such as "
        "timm:convnext_atto. Default: the one in the model's name",
    )
    weights: str | None = option(
        None,
        "starting weights: coco, imagenet, bundled (part of detseg), none, or a file. Default: coco (classify: "
        "imagenet); bundled for the demo set, which must run without a network connection",
    )
    class_transfer: str | list[str] | None = option(
        None,
        "comma-separated CLASS=CLASS OF THE WEIGHTS, such as worker=person, or bolt= for none: the pretrained class "
        "whose output-layer weights a class starts from. Default: the class of the same name or a listed synonym",
    )
    freeze: Literal["none", "stem", "backbone", "neck", "rpn"] | None = option(
        None,
        "freeze all parts up to this one. Default with pretrained weights: stem on CUDA, backbone on CPU, where it "
        "halves the time; none without pretrained weights",
    )
    trainable_layers: int | None = option(
        None, "number of trainable backbone layers, 0 to 5, as in torchvision. Not together with --freeze"
    )
    norm_eval: bool | None = option(
        None,
        "fix the statistics of the backbone's norm layers while their weights are trained, which is also faster. "
        "Default: true for pretrained detectors with batches below 16, too small for BatchNorm statistics; else false",
    )
    image_size: int | None = option(
        None, "length of the shorter side in pixels. Default: the one that the weights were trained with, 480 on CPU"
    )
    value_range: list[float] | None = option(None, VALUE_RANGE)
    anchor_sizes: list[int] | None = option(
        None,
        "anchor sides in pixels of the network's input, one for each feature map, such as [16,32,64,128,256]. "
        "Default: the architecture's; fitted to the boxes when the RPN is trained from scratch",
    )
    rois_per_image: int | None = option(
        None, "RoIs per image in the head's loss. Default 128: torchvision's 512 doubles the time and has no benefit"
    )
    mask_rois_per_image: int | None = option(
        None,
        "maximum number of these RoIs, sampled at random, in the mask loss: the RoIs of one object are redundant. "
        "Default: all that match an object, as in torchvision; demo: 6",
    )
    detections_per_image: int | None = option(
        None,
        "maximum number of detections per image. Default: 100, or 1.5 times the objects of the most crowded training "
        "image; demo: 30",
    )

    split: Literal["auto", "stratified", "group", "source"] = option(
        "auto", "how to split the data. Default auto: the split of the data set itself, else by group, else stratified"
    )
    val: float = option(
        0.2,
        "fraction of the images in the validation split; 0: train on them too, and keep the weights of the epoch with "
        "the lowest training loss. Default 0.2",
    )
    test: float | None = option(
        None,
        "fraction of the images in the test split. Default: 0.15 for 100 images or more, else 0; 0 with --val 0",
    )
    group: str | None = option(
        None,
        "keep images that belong together (frames of one video) in one split: a CSV file of file,group, or a regular "
        "expression for the file name whose first capture group is the group",
    )
    split_file: str | None = option(None, "split.json of an earlier run, to split the data in the same way")
    subset: int | None = option(None, "number of training images to use. Default: all")

    augment: Literal["none", "flip", "light", "aerial", "strong"] | None = option(
        None,
        "augmentation preset. Default light: small data sets overfit without; it flips horizontally. aerial also "
        "rotates, for images taken from above, which have no upright orientation (demo)",
    )
    epochs: int | None = option(None, "epochs to train. Default 10, as in the published Penn-Fudan run; demo: 16")
    minutes: float | None = option(
        None,
        "wall-clock minutes for training and the evaluation and checkpoint after each epoch: the number of epochs, at "
        "least 1, follows from speeds measured before training. Not together with --epochs. Default: no limit",
    )
    batch_size: int | None = option(
        None,
        "images per step and process; 0: as many as fit in GPU memory, measured. Default: 4 on CUDA, 2 on CPU; "
        "classify: 32 and 16; never more than there are images",
    )
    optimizer: Literal["sgd", "adamw"] | None = option(
        None,
        "optimizer. Default sgd, as for all published R-CNN weights; adamw without pretrained weights, where it works "
        "without tuning the learning rate",
    )
    lr: float | None = option(
        None,
        "learning rate. Default: proportional to the batch for sgd, 0.0025 per image, at most 0.02; 5e-4 for adamw; "
        "demo: 1e-3",
    )
    momentum: float = option(0.9, "momentum of sgd. Default 0.9, as in torchvision")
    weight_decay: float | None = option(
        None, "weight decay. Default 5e-4 for sgd (as in the Penn-Fudan run), 0.05 for adamw"
    )
    backbone_lr_mult: float = option(1.0, "learning-rate multiplier for the backbone. Default 1, as in torchvision")
    head_lr_mult: float | None = option(
        None,
        "learning-rate multiplier for the classification, box and mask output layers, which are randomly initialized "
        "for new classes. Default 1, as in torchvision; demo: 3",
    )
    beta2: float | None = option(
        None,
        "second beta of adamw: it averages squared gradients over about 1/(1-beta2) steps. Default 0.999, the usual "
        "value; demo: 0.98, because its run has a few hundred steps",
    )
    schedule: Literal["constant", "step", "multistep", "exponential", "cosine"] = option(
        "cosine", "learning-rate schedule. Default cosine: no milestones to tune"
    )
    milestones: list[int] | None = option(
        None, "epochs at which multistep lowers the learning rate. Default: 2/3 and 8/9 of all epochs"
    )
    step_epochs: int = option(3, "epochs between two changes of the step schedule. Default 3, as in the Penn-Fudan run")
    gamma: float = option(
        0.1, "learning-rate factor of the step, multistep and exponential (there per epoch) schedules. Default 0.1"
    )
    warmup_steps: int | None = option(
        None, "steps of linear warm-up. Default: one epoch, at most 1000 steps and a tenth of the run; prevents NaN"
    )
    loss_weights: str | list[str] | None = option(
        None,
        "comma-separated TERM=FACTOR, such as mask=2,rpn=0.5: factors of loss terms in the total loss, by their names "
        "in metrics.jsonl without loss_; rpn: both terms of the RPN, box: those of the box head. Default: 1 for all",
    )
    clip_norm: float = option(10.0, "maximum norm of the gradient, 0 for none. Default 10: only spikes are clipped")
    patience: int = option(0, "stop after this many epochs without a better score. Default 0: never")
    accumulate: int = option(1, "batches whose gradients are averaged for one step. Default 1")
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", "number format of a step; weights stay float32. Default fp32: the same numbers on every machine"
    )
    ema: float | None = option(
        None,
        "decay of a moving average of the weights, such as 0.999; the average is evaluated and saved as the best "
        "weights. Default: no average",
    )
    skip_nonfinite: int = option(
        0, "steps in a row that may be skipped because a loss is not finite. Default 0: the run stops with an error"
    )
    checkpoint_every: str = option(
        "10m", "steps (500) or minutes (10m) between checkpoints within an epoch; 0 for none. Default 10m"
    )
    keep_checkpoints: int = option(
        2, "number of recent checkpoints to keep. Default 2: the older one is a fallback if the newest is corrupt"
    )
    eval_epochs: int | None = option(
        None,
        "epochs between two evaluations; the last epoch is always evaluated. Default 1; demo: 8",
    )
    val_loss: bool = option(True, "compute the validation loss at each evaluation. Default true: it shows overfitting")

    linear_probe_epochs: int | Literal["half"] | None = option(
        None,
        "first train the heads on the frozen backbone, whose features are computed once, for this many of the --epochs "
        "or half of them; then train all parts that --freeze does not freeze, at a lower learning rate (LP-FT, Kumar "
        "et al. 2022). Default: no linear probing",
    )
    finetune_lr_mult: float = option(0.1, "learning-rate multiplier after the linear probe. Default 0.1")
    cache: Literal["auto", "memory", "disk", "off"] = option(
        "auto",
        "where to cache features of a frozen backbone, so that it runs once for each view of an image. Default auto: "
        "in memory if they fit, else on disk, where other runs can reuse them",
    )
    cached_views: int = option(
        0, "randomly augmented views (--augment) to cache besides the original and the flipped image. Default 0"
    )
    cache_dtype: Literal["float16", "float32"] = option(
        "float16", "number format of cached features. Default float16: half the memory; float32 changes no number"
    )
    cache_limit: float | None = option(
        None,
        "maximum GB of cached features; the others are computed in every step. Default: half of the free memory; on "
        "disk 20, and at most half of the free space",
    )
    cache_dir: str | None = option(None, "folder for features cached on disk. Default: ~/.cache/detseg/features")

    decoded_limit: float = option(
        4.0,
        "maximum GB of decoded images in a file that the loader workers of the run share, 0 for none. Default 4; the "
        "others are decoded in every epoch",
    )

    workers: int | None = option(
        None, "loader worker processes. Default: cores minus one, at most 4; 0 on CPU, which training keeps busy"
    )
    device: str | None = option(None, "cuda, cuda:1, cpu, ... Default: cuda if available")
    seed: int = option(0, "seed of all random numbers. Default 0")


@dataclass(frozen=True)
class PretrainConfig:
    """Options of ``pretrain``."""

    data: str = option("", "large labelled data set to train on. Default: scenes that are rendered during training")
    output: str = option("runs/pretrain", "folder to write. Default runs/pretrain")
    resume: str | None = option(None, "folder to resume from its latest checkpoint")
    model: str = option("maskrcnn_mobilenet_v3_large_fpn_slim", "architecture. Default: that of the bundled weights")
    weights: str = option("none", "starting weights: coco, imagenet, bundled or a file. Default none: from scratch")
    epochs: int = option(24, "epochs to train. Default 24: an hour on two cores")
    epoch_steps: int = option(200, "steps per epoch, after which a checkpoint is written. Default 200")
    eval_epochs: int = option(8, "epochs between two evaluations. Default 8")
    batch_size: int = option(16, "scenes per step, of all processes together. Default 16")
    image_size: int = option(160, "sides of a scene in pixels. Default 160")
    rois_per_image: int = option(48, "RoIs per scene in the head's loss. Default 48")
    mask_rois_per_image: int | None = option(
        None, "maximum number of these RoIs in the mask loss. Default: all that match an object"
    )
    lr: float = option(1.5e-3, "learning rate of adamw. Default 1.5e-3")
    val_scenes: int = option(200, "scenes that the weights are evaluated on. Default 200")
    workers: int = option(0, "rendering processes per training process. Default 0: the training process renders")
    device: str | None = option(None, "cuda, cpu, ... Default: cuda if available")
    seed: int = option(0, "seed of all scenes and random numbers. Default 0")


@dataclass(frozen=True)
class EvaluateConfig(DataConfig):
    """Options of ``evaluate``."""

    run: str = option("", "run folder or checkpoint file")
    split: Literal["train", "val", "test", "all"] = option(
        "val", "split to evaluate. Default val; data other than the run's is used as a whole unless it has this split"
    )
    predictions: str | None = option(None, "COCO results file to evaluate instead of a model")
    ground_truth: str | None = option(None, "COCO annotation file for --predictions")
    iou_type: Literal["bbox", "segm", "keypoints"] | None = option(
        None, "IoU type for --predictions. Default: segm if they have masks, keypoints if they have some, else bbox"
    )
    max_dets: int | None = option(
        None,
        "maximum number of detections counted per class and image. Default 100 (keypoints 20) as in COCO; for a run at "
        "least the number of objects in the most crowded image",
    )
    reference: bool = option(
        False,
        "evaluate --predictions with pycocotools itself, using the ids of the file. Default false: the same numbers, "
        "faster, but an annotation with id 0 can be matched",
    )
    loss: bool = option(False, "also compute the losses, as the validation loss in training. Default false")
    json: bool = option(False, "print only the metrics, as JSON. Default false: a table")
    output: str | None = option(None, "folder for metrics.json and predictions.json. Default: <run>/evaluate-<split>")
    batch_size: int | None = option(
        None, "images per batch. Default: that of the run, so that the metrics are equal to the run's"
    )
    workers: int | None = option(None, "loader worker processes. Default: cores minus one, at most 4; 0 on CPU")
    device: str | None = option(None, "cuda, cpu, ... Default: cuda if available")


@dataclass(frozen=True)
class PredictConfig:
    """Options of ``predict``."""

    run: str = option("", "run folder or checkpoint file")
    images: list[str] = field(default_factory=list, metadata={"help": "image files or folders"})
    output: str = option("out", "folder for predictions.json and images. Default out")
    min_score: float = option(0.5, "minimum score of drawn predictions. Default 0.5; predictions.json contains all")
    draw: bool = option(True, "write images with drawn predictions. Default true")
    device: str | None = option(None, "cuda, cpu, ... Default: cuda if available")


@dataclass(frozen=True)
class InspectConfig(DataConfig):
    """Options of ``inspect``."""

    output: str | None = option(None, "folder for sheet.jpg and summary.json. Default: inspect-<data>")
    value_range: list[float] | None = option(None, VALUE_RANGE)
    records: int = option(16, "number of images on the sheet. Default 16")
    json: bool = option(False, "print only the summary, as JSON. Default false: a table")
    seed: int = option(0, "seed that selects the images on the sheet. Default 0: the same ones each time")


@dataclass(frozen=True)
class ConvertConfig(DataConfig):
    """Options of ``convert``."""

    output: str = option("", "new folder to write. No default")
    to: Literal["coco", "voc", "yolo", "csv", "labelme", "cvat", "via"] = option("coco", "output format. Default coco")


@accepts_old_options
@dataclass(frozen=True)
class BenchmarkConfig(TrainConfig):
    """Options of ``benchmark``: those of ``train``, and what to compare with."""

    what: Literal["baseline", "transfer", "frozen", "step", "evaluate", "predict", "loader", "index", "all"] = option(
        "baseline",
        "what to compare. Default baseline: AP of a torchvision training loop; transfer: starting weights at equal "
        "training times; the others: speed of a part against its baseline, on generated data; all: all of these parts",
    )
    seeds: list[int] | None = option(None, "one run per seed, such as [0,1]. Default [0,1,2]")
    budgets: list[float] | None = option(None, "transfer: minutes of training, each for every arm. Default [3,20]")
    arms: str | list[str] | None = option(
        None,
        "transfer: comma-separated arms out of scratch, bundled frozen, bundled fine-tuned, imagenet frozen and "
        "imagenet fine-tuned. Default: all, the imagenet ones only with --imagenet",
    )
    bundled: str = option("bundled", "transfer: weights of the bundled arms. Default: those that come with the package")
    imagenet: str | None = option(
        None, "transfer: a classification state dict of MobileNetV2. Default: no imagenet arms"
    )
