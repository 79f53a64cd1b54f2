"""Define the options of ``train``, in groups. None means: not needed, or chosen for the data and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import detseg.options.defaults as defaults
from detseg.old_names import accepts_old_options
from detseg.options.data import VALUE_LIMIT, DataConfig
from detseg.options.field import Default, option
from detseg.options.running import CacheOptions, CheckpointOptions, RunOptions
from detseg.options.tiles import TileOptions
from detseg.tasks import Task

FreezeLevel = Literal["none", "stem", "backbone", "neck", "rpn"]
OptimizerName = Literal["sgd", "adamw"]
Preset = Literal["none", "flip", "light", "aerial", "strong"]


@dataclass(frozen=True)
class SplitOptions:
    """Division of the data into training, validation and test images."""

    split: Literal["auto", "stratified", "group", "source"] = option(
        "auto", "how to split the data", "the split of the data set itself, else by group, else stratified"
    )
    val: float = option(
        0.2,
        "fraction of the images in the validation split; 0: train on them too, and keep the weights of the epoch with "
        "the lowest training loss",
        least=0,
        below=1,
        example=0.2,
        common=True,
    )
    test: float | None = option(
        None,
        "fraction of the images in the test split",
        "0.15 for 100 images or more, else 0; 0 with --val 0",
        least=0,
        below=1,
        example=0.15,
    )
    group: str | None = option(
        None,
        "keep images that belong together (frames of one video) in one split: a CSV file of file,group; a regular "
        "expression for the file name whose first capture group is the group; auto: near-duplicates, numbered frames, "
        "and augmented copies by their names; or none",
        "auto if near-duplicates would otherwise be in two splits",
        value="FILE|REGEX|auto|none",
    )
    fold: str | None = option(
        None,
        "validate on fold I of K equal parts of the data with the same share of each class, and train on the others: "
        "1/5 to 5/5 are a cross-validation",
        "no folds",
        value="I/K",
    )
    split_file: str | None = option(
        None, "split.json of an earlier run, to split the data in the same way", value="FILE"
    )
    subset: int | None = option(None, "number of training images to use", "all", least=1)


@dataclass(frozen=True)
class ModelOptions:
    """Architecture, starting weights and size."""

    task: Task | None = option(
        None,
        "task to train for",
        "keypoints if there are any, segment if there are masks, detect if there are boxes, classify if there are "
        "class folders",
        common=True,
    )
    model: str | None = option(
        None,
        "architecture",
        chosen=[
            *defaults.MODEL_FOR_BUNDLED.values(),
            *defaults.MODEL_ON_CUDA.values(),
            *defaults.MODEL_ON_CPU.values(),
        ],
        value="NAME",
        brief="architecture. "
        "Default: the one that the weights fit, else R-CNN with ResNet-50 on CUDA, MobileNet on CPU",
        common=True,
    )
    backbone: str | None = option(
        None,
        "backbone for --model fasterrcnn, maskrcnn, keypointrcnn or classifier: timm:NAME, such as timm:convnext_atto",
        "the one in the model's name",
        value="timm:NAME",
    )
    weights: str | None = option(
        None,
        "starting weights: coco, imagenet, bundled (part of detseg), none, or a file",
        chosen=[defaults.COCO, defaults.IMAGENET],
        value="NAME|FILE",
        brief="starting weights: coco, imagenet, bundled (part of detseg), none, or a file. "
        "Default: coco if published for the model, else imagenet",
        common=True,
    )
    class_transfer: str | list[str] | None = option(
        None,
        "comma-separated CLASS=CLASS OF THE WEIGHTS, such as worker=person, or bolt= for none: the pretrained class "
        "whose output-layer weights a class starts from",
        "the class of the same name or a known synonym",
        value="NEW=OLD,...",
    )
    image_size: int | None = option(
        None,
        "length of the shorter side in pixels",
        "the one that the weights were trained with",
        chosen=[defaults.IMAGE_SIZE_ON_CPU],
        least=32,
        limit=16_384,
        brief="length of the shorter side in pixels. Default: that of the weights; 480 for detectors on CPU",
        common=True,
    )
    value_range: list[float] | None = option(
        None,
        "lowest and highest value of images with more than 8 bits per channel, such as [0,4095], which become 0 and "
        "255; the model keeps it",
        "the range of the training images",
        value="LOW,HIGH",
        least=-VALUE_LIMIT,
        most=VALUE_LIMIT,
    )
    anchor_sizes: list[int] | None = option(
        None,
        "anchor sides in pixels of the network's input, one for each feature map, such as [16,32,64,128,256]",
        "the architecture's; fitted to the boxes when the RPN is trained from scratch",
        least=1,
        limit=100_000,
    )
    rois_per_image: int | None = option(
        None,
        "region proposals (RoIs) per image in the loss of the head",
        chosen=[defaults.ROIS_PER_IMAGE],
        least=1,
        limit=1_000_000,
    )
    mask_rois_per_image: int | None = option(
        None,
        "maximum number of these RoIs, sampled at random, in the mask loss: the RoIs of one object are redundant",
        "all that match an object, as in torchvision",
        least=1,
        limit=1_000_000,
    )
    detections_per_image: int | None = option(
        None,
        "maximum number of detections per image",
        f"{defaults.DETECTIONS_PER_IMAGE}, or {defaults.DETECTIONS_PER_OBJECT:g} times the objects of the most crowded "
        "training image",
        least=1,
        limit=1_000_000,
    )


@dataclass(frozen=True)
class FreezingOptions:
    """Parts of the model that are not trained."""

    freeze: FreezeLevel | None = option(
        None,
        "freeze all parts up to this one",
        chosen=[
            defaults.FREEZE_NOTHING,
            defaults.FREEZE_FOR_PROBE,
            defaults.FREEZE_BUNDLED_CLASSIFIER,
            defaults.FREEZE_ON_CUDA,
            defaults.FREEZE_ON_CPU,
        ],
        brief="freeze all parts up to this one. "
        "Default: none without pretrained weights, else stem on CUDA, backbone on CPU",
        common=True,
    )
    trainable_layers: int | None = option(
        None,
        "number of trainable backbone layers, 0 to 5 (some MobileNets: 6), as in torchvision. Not together with "
        "--freeze",
        least=0,
    )
    norm_eval: bool | None = option(
        None,
        "fix the statistics of the backbone's norm layers while their weights are trained, which is also faster",
        f"true for pretrained detectors with batches below {defaults.ENOUGH_FOR_STATISTICS}, too small for BatchNorm "
        "statistics; else false",
    )


@dataclass(frozen=True)
class TrainingOptions:
    """Epochs, batches, losses and evaluation."""

    augment: Preset | None = option(
        None,
        "augmentation preset. light flips horizontally; aerial also rotates, for images taken from above, which have "
        "no upright orientation",
        chosen=[defaults.AUGMENT],
        brief="augmentation preset; aerial is for images taken from above. "
        "Default: light (small data sets overfit without)",
        common=True,
    )
    epochs: int | None = option(
        None, "epochs to train", chosen=[defaults.EPOCHS], least=1, limit=1_000_000, common=True
    )
    minutes: float | None = option(
        None,
        "wall-clock minutes of the whole run, from its start to its last line: the number of epochs, at least 1, "
        "follows from speeds measured before training. Not together with --epochs",
        "no limit",
        above=0,
        limit=1_000_000,
        brief="minutes of training in place of --epochs, whose number follows from measured speeds",
        common=True,
    )
    batch_size: int | None = option(
        None,
        "images per step and process; 0: as many as fit in GPU memory, measured",
        "never more than there are images",
        chosen=[
            defaults.BATCH_SIZE_ON_CUDA,
            defaults.BATCH_SIZE_ON_CPU,
            defaults.CLASSIFIER_BATCH_SIZE_ON_CUDA,
            defaults.CLASSIFIER_BATCH_SIZE_ON_CPU,
        ],
        least=0,
        limit=100_000,
        brief="images per step and process; 0: as many as fit in GPU memory. "
        "Default: 4 on CUDA, 2 on CPU; classifiers 32, 16",
        common=True,
    )
    balance: Literal["none", "repeat", "class"] = option(
        "none",
        "draw images with rare classes more often: repeat (repeat-factor sampling of LVIS, by the square root of the "
        "share of images) or class (every class equally often). An epoch has as many samples as before",
    )
    repeat_threshold: float | None = option(
        None,
        "share of the images below which --balance repeat considers a class rare",
        "the share of the most common class",
        above=0,
        most=1,
        example=0.1,
    )
    echo: int = option(
        1,
        "use each decoded image this many times before the next one, with another augmentation each time, if reading "
        "images is slow; an epoch then has this many times as many steps",
        least=1,
        limit=1_000,
    )
    accumulate: int = option(1, "batches whose gradients are averaged for one step", least=1, limit=1_000_000)
    loss_weights: str | list[str] | None = option(
        None,
        "comma-separated TERM=FACTOR, such as mask=2,rpn=0.5: factors of loss terms in the total loss, by their names "
        "in metrics.jsonl without loss_; rpn: both terms of the RPN, box: those of the box head",
        "1 for all",
        value="TERM=X,...",
    )
    clip_norm: float = option(10.0, "maximum norm of the gradient, 0 for no limit", "only spikes are clipped", least=0)
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", "number format of a step; weights stay float32", "the same numbers on every machine"
    )
    ema: float | None = option(
        None,
        "decay of a moving average of the weights; the average is evaluated and saved as the best weights",
        "no average",
        above=0,
        below=1,
        example=0.999,
    )
    patience: int = option(0, "stop after this many epochs without a better score", "never", least=0)
    eval_epochs: int | None = option(
        None,
        "epochs between two evaluations; the last epoch is always evaluated",
        chosen=[defaults.EVAL_EPOCHS],
        least=1,
        limit=1_000_000,
    )
    val_loss: bool = option(True, "compute the validation loss at each evaluation", "it shows overfitting")
    skip_nonfinite: int = option(
        0, "steps in a row that may be skipped because a loss is not finite", "the run stops with an error", least=0
    )


@dataclass(frozen=True)
class OptimizerOptions:
    """Optimizer and learning rates."""

    optimizer: OptimizerName | None = option(
        None, "optimizer", chosen=[defaults.ADAMW, defaults.SGD_FOR_DETECTORS, defaults.SGD_FOR_CLASSIFIERS]
    )
    lr: float | None = option(
        None,
        "learning rate",
        chosen=[
            Default(f"{defaults.LR_PER_IMAGE:g} per image of a step, at most {defaults.MAX_LR:g}", "", "for sgd"),
            Default(
                f"{defaults.ONE_STAGE_LR_PER_IMAGE:g} per image of a step, at most {defaults.MAX_ONE_STAGE_LR:g}",
                "half of R-CNN's, as published",
                "for sgd and one-stage detectors",
            ),
            defaults.ADAMW_LR,
        ],
        above=0,
        limit=1_000,
        brief="learning rate. Default: 0.0025 per image of a step for sgd, 0.0005 for adamw",
        common=True,
    )
    momentum: float = option(0.9, "momentum of sgd", "as in torchvision", least=0, below=1)
    weight_decay: float | None = option(
        None, "weight decay", chosen=defaults.WEIGHT_DECAY.values(), least=0, limit=1_000
    )
    backbone_lr_mult: float = option(
        1.0, "learning-rate multiplier for the backbone", "as in torchvision", above=0, limit=1_000_000
    )
    head_lr_mult: float | None = option(
        None,
        "learning-rate multiplier for the classification, box and mask output layers, which are randomly initialized "
        "for new classes",
        chosen=[defaults.HEAD_LR_MULT],
        above=0,
        limit=1_000_000,
    )
    beta2: float | None = option(
        None,
        "second beta of adamw: it averages squared gradients over about 1/(1-beta2) steps",
        chosen=[defaults.BETA2],
        above=0,
        below=1,
        example=0.999,
    )


@dataclass(frozen=True)
class ScheduleOptions:
    """Course of the learning rate, and the linear probe."""

    schedule: Literal["constant", "step", "multistep", "exponential", "cosine"] = option(
        "cosine", "learning-rate schedule", "no milestones to tune"
    )
    milestones: list[int] | None = option(
        None, "epochs at which multistep lowers the learning rate", "2/3 and 8/9 of all epochs", least=0
    )
    step_epochs: int = option(3, "epochs between two changes of the step schedule", "as in the Penn-Fudan run", least=1)
    gamma: float = option(
        0.1,
        "learning-rate factor of the step, multistep and exponential (there per epoch) schedules",
        above=0,
        limit=1_000,
    )
    warmup_steps: int | None = option(
        None,
        "steps of linear warm-up, which prevents NaN",
        f"one epoch, at most {defaults.MAX_WARMUP_STEPS} steps and a tenth of the run",
        least=0,
    )
    linear_probe_epochs: int | Literal["half"] | None = option(
        None,
        "first train the heads on the frozen backbone, whose features are computed once, for this many of the --epochs "
        "or half of them; then train all parts that --freeze does not freeze, at a lower learning rate (LP-FT, Kumar "
        "et al. 2022)",
        "no linear probe",
        least=1,
        limit=1_000_000,
    )
    finetune_lr_mult: float = option(0.1, "learning-rate multiplier after the linear probe", above=0, limit=1_000_000)


@accepts_old_options
@dataclass(frozen=True)
class TrainConfig(
    RunOptions,
    CacheOptions,
    CheckpointOptions,
    ScheduleOptions,
    OptimizerOptions,
    TrainingOptions,
    FreezingOptions,
    TileOptions,
    ModelOptions,
    SplitOptions,
    DataConfig,
):
    """Options of ``train``. None means: not needed, or chosen for the data and the machine, and printed."""
