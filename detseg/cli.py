"""Parse the command line and run a command. Nothing here imports torch before the arguments are validated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from detseg import help_text
from detseg.old_names import GONE_IN, current_arguments, current_options
from detseg.options import (
    BaselineConfig,
    ConvertConfig,
    EvaluateConfig,
    InspectConfig,
    PredictConfig,
    PretrainConfig,
    SpeedConfig,
    TrainConfig,
    TransferConfig,
)
from detseg.options.defaults import DEMO
from detseg.options.field import help_text as option_help
from detseg.options.text import flat_options
from detseg.runtime.signals import EXIT_CODE, Interrupted
from detseg.version import __version__

if TYPE_CHECKING:
    import jsonargparse

COMMANDS: dict[str, tuple[type, tuple[tuple[str, str], ...], str]] = {
    "train": (TrainConfig, (("data", "?"),), "Train a model on a folder of labelled images."),
    "evaluate": (
        EvaluateConfig,
        (("run", "?"), ("data", "?")),
        "Evaluate a run on labelled images, or a results file against an annotation file.",
    ),
    "predict": (PredictConfig, (("run", ""), ("images", "+")), "Run a trained model on images."),
    "inspect": (InspectConfig, (("data", "?"),), "Summarize a data set and list its errors."),
    "convert": (ConvertConfig, (("data", ""), ("output", "")), "Write a data set in another format."),
    "pretrain": (PretrainConfig, (("data", "?"),), "Pretrain weights on scenes that are rendered during training."),
}
"""Command -> its config, its positional arguments (name and number: "" for one), and one line of help."""
BENCHMARK_TEXT = "Compare with other training loops and starting weights, or speed part by part."
_SPEED = (SpeedConfig, (("what", ""),), "Speed of a part with its baseline, on generated data.")
BENCHMARKS: dict[str, tuple[type, tuple[tuple[str, str], ...], str]] = {
    "baseline": (BaselineConfig, (("data", "?"),), "AP and minutes of training, with a torchvision training loop."),
    "transfer": (TransferConfig, (("data", "?"),), "Starting weights at equal training times."),
    **dict.fromkeys(("frozen", "step", "evaluate", "predict", "loader", "index", "all"), _SPEED),
}
"""What ``benchmark`` compares -> as in ``COMMANDS``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 for done, 1 for bad input or a failed run, 2 for wrong arguments."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, (*COMMANDS, "benchmark")))
        print("usage: detseg COMMAND [OPTIONS]\n")
        print("\n".join(f"  {name:{width}}  {text}" for name, (_, _, text) in COMMANDS.items()))
        print(
            f"  {'benchmark':{width}}  Compare with other training loops and starting weights, or speed part by part."
        )
        print("\ndetseg COMMAND --help lists the options of a command.")
        return 0 if arguments else 2
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        print(__version__)
        return 0
    if command not in (*COMMANDS, "benchmark"):
        names = ", ".join((*COMMANDS, "benchmark"))
        print(f"detseg: {command!r} is not a command; the commands are {names}", file=sys.stderr)
        return 2
    try:
        return _run(command, parse(command, rest))
    except Interrupted as interrupted:
        print(f"detseg {command}: stopped by {interrupted}", file=sys.stderr)
        return EXIT_CODE
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"detseg {command}: {_message(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"detseg {command}: interrupted", file=sys.stderr)
        return 130


def parse(command: str, arguments: Sequence[str]) -> Any:
    """Return the config of ``command``: defaults, then ``--config FILE.toml``, then flags. Exits with 2 on errors."""
    arguments, notices = current_arguments(command, arguments)
    if command == "benchmark":
        topic, arguments = _benchmark_topic(arguments)
        config_class, positional, text = BENCHMARKS[topic]
        command = f"benchmark {topic}" if config_class is not SpeedConfig else command
    else:
        config_class, positional, text = COMMANDS[command]
    names = " ".join(f"[{name.upper()}]" if number == "?" else name.upper() for name, number in positional)
    usage = f"detseg {command} {names} [OPTIONS]"
    types = get_type_hints(config_class)
    numbers = dict(positional)
    order = {name: index for index, name in enumerate(numbers)}
    by_position = sorted(fields(config_class), key=lambda item: order.get(item.name, len(order)))
    if help_text.is_requested(arguments):
        demo = DEMO if config_class is TrainConfig else {}
        print(help_text.help_text(usage, text, by_position, types, numbers, demo), end="")
        raise SystemExit(0)
    import jsonargparse  # takes several times as long as Python's start

    parser = jsonargparse.ArgumentParser(prog=f"detseg {command}", usage=usage, description=text)
    parser.add_argument("--config", type=str, help=help_text.CONFIG_HELP)
    for item in by_position:
        text, flag = option_help(item), f"--{item.name.replace('_', '-')}"
        if numbers.get(item.name) == "?":
            parser.add_argument(item.name, type=types[item.name], nargs="?", default=item.default, help=text)
        elif numbers.get(item.name) == "+":
            parser.add_argument(item.name, type=str, nargs="+", help=text)
        elif item.name in numbers:
            parser.add_argument(item.name, type=types[item.name], help=text)
        elif types[item.name] in (bool, bool | None):
            switch = jsonargparse.ActionYesNo(yes_prefix="", no_prefix="no-")
            parser.add_argument(flag, action=switch, default=item.default, help=text)
        else:
            parser.add_argument(flag, type=types[item.name], default=item.default, help=text)
    file = _config_file(arguments)
    if file is not None:
        required = {name: [] if number == "+" else "" for name, number in positional if number != "?"}
        defaults, old_names = _read_toml(parser, Path(file), {item.name for item in fields(config_class)}, required)
        parser.set_defaults(defaults)
        notices += [f"{file}: {notice}" for notice in old_names]
    values = vars(parser.parse_args(arguments))
    for notice in notices:
        print(f"detseg {command}: {notice}; the old name will be removed in version {GONE_IN}", file=sys.stderr)
    return config_class(**{item.name: values[item.name] for item in fields(config_class)})


def _benchmark_topic(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return what ``benchmark`` compares, and its arguments. Without it, list the comparisons and exit."""
    words = list(arguments)
    file = _config_file(words)
    if words and words[0] in BENCHMARKS:
        topic = words[0]
        return topic, words if BENCHMARKS[topic][0] is SpeedConfig else words[1:]
    if file is not None and Path(file).is_file() and not words[0].isalpha():
        import tomllib

        topic = current_options(tomllib.loads(Path(file).read_text(encoding="utf-8")))[0].get("what", "")
        if topic in BENCHMARKS:
            return topic, [topic, *words] if BENCHMARKS[topic][0] is SpeedConfig else words
    is_help = not words or words[0] in ("-h", "--help")
    width = max(map(len, BENCHMARKS))
    text = "\n".join(f"  {name:{width}}  {help_line}" for name, (_, _, help_line) in BENCHMARKS.items())
    first = "usage: detseg benchmark COMPARISON [OPTIONS]"
    first = first if is_help else f"detseg benchmark: {words[0]!r} is not a comparison; the comparisons are"
    print(f"{first}\n\n{text}", file=sys.stdout if is_help else sys.stderr)
    raise SystemExit(0 if words and is_help else 2)


def _message(error: Exception) -> str:
    """Return the error as one line; an error of a loader worker contains the traceback of that process."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        return text.strip().splitlines()[-1].partition(": ")[2]
    return text


def _config_file(arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith("--config="):
            return argument.removeprefix("--config=")
    return None


def _read_toml(
    parser: jsonargparse.ArgumentParser, path: Path, names: set[str], required: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    import tomllib  # without a file, the command starts faster

    try:
        with path.open("rb") as file:
            values, notices = current_options(flat_options(tomllib.load(file)))
            values.pop("what", None)
    except (OSError, ValueError) as error:
        parser.error(f"--config {path}: {error}")
    unknown = sorted(set(values) - names)
    if unknown:
        parser.error(f"--config {path}: unknown key {unknown[0]!r}; the keys are {', '.join(sorted(names))}")
    parser.parse_object(required | values)  # checks the types: set_defaults does not check values
    return values, notices


def _run(command: str, config: Any) -> int:
    from detseg.runtime.reporter import terminal

    reporter = terminal()
    if command == "train":
        from detseg.recipes.train import train

        train(config, reporter=reporter)
    elif command == "pretrain":
        from detseg.recipes.pretrain import pretrain

        pretrain(config, reporter=reporter)
    elif command == "evaluate":
        from detseg.recipes.evaluate import evaluate

        evaluate(config, reporter=reporter)
    elif command == "predict":
        from detseg.recipes.predict import predict

        return 1 if predict(config, reporter=reporter).failed else 0
    elif command == "convert":
        from detseg.recipes.convert import convert

        convert(config, reporter=reporter)
    elif command == "benchmark":
        from detseg.benchmarks.run import run_benchmark

        run_benchmark(config, reporter=reporter)
    else:
        from detseg.recipes.inspect import inspect

        inspect(config, reporter=reporter)
    return 0


if __name__ == "__main__":
    sys.exit(main())
