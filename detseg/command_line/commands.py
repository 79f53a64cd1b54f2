"""Define the commands: the options of each, its positional arguments, and its line of help."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from detseg.options.field import Option


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: what is typed after ``detseg``, such as "train" or "benchmark baseline".
        config: name of the class of its options in ``detseg.options``, which is imported when it is used.
        text: one sentence of help.
        positional: options that are given by position, and how many words each takes: "1", "?" (at most one) or "+".
        fixed: options that follow from the name.
    """

    name: str
    config: str
    text: str
    positional: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)

    @property
    def config_class(self) -> type[Any]:
        """The dataclass of its options."""
        config_class: type[Any] = getattr(importlib.import_module("detseg.options"), self.config)
        return config_class

    @property
    def options(self) -> dict[str, Option]:
        """Its options by name, without those that follow from the name of the command."""
        types = get_type_hints(self.config_class)
        return {
            item.name: Option(item, types[item.name])
            for item in fields(self.config_class)
            if item.name not in self.fixed
        }

    @property
    def usage(self) -> str:
        """The line that shows how it is called."""
        forms = {"1": "{}", "?": "[{}]", "+": "{} ..."}
        names = (forms[number].format(name.upper()) for name, number in self.positional.items())
        return " ".join(["usage: detseg", self.name, *names, "[OPTIONS]"])


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("train", "TrainConfig", "Train a model on a folder of labelled images.", {"data": "?"}),
        Command(
            "evaluate",
            "EvaluateConfig",
            "Compute the metrics of a trained model, or of a file of predictions, on labelled images.",
            {"run": "?", "data": "?"},
        ),
        Command("predict", "PredictConfig", "Run a trained model on images.", {"run": "1", "images": "+"}),
        Command(
            "export", "ExportConfig", "Export a trained model to an ONNX file that runs without torch.", {"run": "1"}
        ),
        Command(
            "selfcheck",
            "SelfcheckConfig",
            "Check that evaluate, predict, an exported file and a server agree.",
            {"run": "1", "file": "?", "url": "?"},
        ),
        Command("inspect", "InspectConfig", "Summarize a data set and list its errors.", {"data": "?"}),
        Command("convert", "ConvertConfig", "Write a data set in another format.", {"data": "1", "output": "1"}),
        Command("describe", "DescribeConfig", "List the modules of a network with their sizes.", {"model": "1"}),
        Command("serve", "ServeConfig", "Answer HTTP requests with the predictions of a trained model.", {"run": "1"}),
        Command("client", "ClientConfig", "Send images to a server.", {"url": "1", "images": "+"}),
        Command(
            "pretrain",
            "PretrainConfig",
            "Create starting weights from rendered scenes or a large labelled data set.",
            {"data": "?"},
        ),
    )
}
"""Name -> command; ``benchmark`` has several, see ``BENCHMARKS``."""

BENCHMARK_TEXT = "Compare accuracy and speed with torchvision, pycocotools and training from scratch."
PARTS = {
    "frozen": "of training with a frozen backbone",
    "step": "of a training step",
    "evaluate": "of pasting masks and computing metrics",
    "predict": "of prediction from image files",
    "loader": "of loading and augmenting images",
    "video": "of reading frames of videos",
    "index": "of reading a large annotation file",
    "inspect": "of checking images, compared with decoding them",
    "archives": "of reading images in archives",
    "serve": "of the HTTP server with 1, 8 and 64 clients",
    "all": "of all these parts",
}
"""Parts whose speed ``benchmark`` measures -> what that is."""

BENCHMARKS: dict[str, Command] = {
    "baseline": Command(
        "benchmark baseline",
        "BaselineConfig",
        "AP and minutes of training, compared with a torchvision training loop.",
        {"data": "?"},
    ),
    "transfer": Command(
        "benchmark transfer",
        "TransferConfig",
        "Starting weights compared with training from scratch, for equal times.",
        {"data": "?"},
    ),
    "feeding": Command(
        "benchmark feeding",
        "FeedingConfig",
        "Images per second of each stage of loading your data, and the number of loader workers that training needs.",
        {"data": "?"},
    ),
    **{
        part: Command(f"benchmark {part}", "SpeedConfig", f"Speed {text}, on generated data.", {}, {"what": part})
        for part, text in PARTS.items()
    },
}
"""What ``benchmark`` compares -> the command that does."""

_IN_ORDER_OF_USE = ("inspect", "convert", "train", "evaluate", "predict", "export", "selfcheck", "serve", "client")
NAMES: dict[str, str] = {name: COMMANDS[name].text for name in dict.fromkeys((*_IN_ORDER_OF_USE, *COMMANDS))} | {
    "benchmark": BENCHMARK_TEXT
}
"""First word of a command line -> its line of help, in the order in which they are listed."""
