"""Parse the command line and run a command. Nothing here imports torch before the arguments are validated."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from detseg.command_line import help as help_texts
from detseg.command_line.commands import BENCHMARKS, COMMANDS, NAMES, Command
from detseg.command_line.parser import config_file, read_options, read_toml
from detseg.errors import MAX_MESSAGE, WORKER_TRACEBACK, DataError
from detseg.nearest import did_you_mean
from detseg.old_names import GONE_IN, current_arguments, current_options
from detseg.short_text import one_line
from detseg.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 for done, 1 for bad input or a failed run, 2 for wrong arguments."""
    started = time.monotonic()  # the minutes of a run include the import of its libraries
    # threads that wait for others must not keep a core busy that another program, or another of them, needs: beside
    # other work on two cores a run is several times faster; read when torch's OpenMP is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "--help-all"):
        _print(help_texts.program_help())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        print(__version__)
        return 0
    if name not in NAMES:
        close = did_you_mean(name, NAMES) or f"; the commands are {', '.join(NAMES)}"
        print(f"detseg: {one_line(repr(name))} is not a command{close}", file=sys.stderr)
        return 2
    return _run(name, parse(name, rest), started)


def parse(name: str, arguments: Sequence[str]) -> Any:
    """Return the config of a command: defaults, then ``--config FILE.toml``, then flags.

    Exits with 0 after help, and with 2 after one line about what is wrong.
    """
    try:
        words, notices = current_arguments(name, arguments)
        command, words = _comparison(words) if name == "benchmark" else (COMMANDS[name], words)
        form_of_help = help_texts.requested(words)
        if form_of_help:
            everything = form_of_help == help_texts.HELP_ALL
            _print(help_texts.command_help(command, help_texts.terminal_width(), everything=everything))
            raise SystemExit(0)
        values, notices_of_file = read_options(command, words)
        config = command.config_class(**values)
    except DataError as error:
        _exit(f"detseg {name}: {error}")
    for notice in [*notices, *notices_of_file]:
        print(f"detseg {name}: {notice}; the old name will be removed in version {GONE_IN}", file=sys.stderr)
    return config


def _comparison(words: list[str]) -> tuple[Command, list[str]]:
    """Return what ``benchmark`` compares, and its arguments. Without it, list the comparisons and exit."""
    if words and words[0] in BENCHMARKS:
        return BENCHMARKS[words[0]], words[1:]
    file = config_file(words)
    if file is not None and not words[0].isalpha():
        topic = current_options(read_toml(file))[0].get("what", "")
        if topic in BENCHMARKS:
            return BENCHMARKS[topic], words
    if words and not help_texts.requested(words):
        close = did_you_mean(words[0], BENCHMARKS) or f"; the comparisons are {', '.join(BENCHMARKS)}"
        raise DataError(f"{words[0]!r} is not a comparison{close}")
    _print(help_texts.comparisons(BENCHMARKS))
    raise SystemExit(0 if words else 2)


def _open_streams() -> None:
    """Open the standard streams that the caller has closed, so that no other file gets their number, and print names
    that their encoding does not have."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # has the lowest free number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # head or less needed no more; Python must not write the rest when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _exit(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(2)


def _run(name: str, config: Any, started: float) -> int:
    """Run a command; what goes wrong is one line, with the exit code for it."""
    from detseg.runtime.signals import EXIT_CODE, Interrupted

    try:
        return _call(name, config, started)
    except Interrupted as interrupted:
        print(f"detseg {name}: stopped by {interrupted}", file=sys.stderr)
        return EXIT_CODE
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"detseg {name}: {_message(error)}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"detseg {name}: not enough memory ({one_line(str(error))}); free some, or use less", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"detseg {name}: interrupted", file=sys.stderr)
        return 130


def _message(error: Exception) -> str:
    """Return the error as one line; an error of a loader worker contains the traceback of that process."""
    text = str(error)
    if text.startswith("Caught ") and WORKER_TRACEBACK in text:
        return one_line(text.strip().splitlines()[-1].partition(": ")[2], MAX_MESSAGE)
    if isinstance(error, UnicodeEncodeError):
        return f"{one_line(repr(error.object))} cannot be written as text in UTF-8; rename the file or class"
    return text if isinstance(error, DataError) else one_line(text, MAX_MESSAGE)


def _call(command: str, config: Any, started: float) -> int:
    from detseg.runtime.reporter import terminal

    reporter = terminal()
    if command == "train":
        from detseg.recipes.train import train

        train(config, reporter=reporter, started=started)
    elif command == "pretrain":
        from detseg.recipes.pretrain import pretrain

        pretrain(config, reporter=reporter)
    elif command == "evaluate":
        from detseg.recipes.evaluate import evaluate

        evaluate(config, reporter=reporter)
    elif command == "predict":
        from detseg.recipes.predict import predict

        return 0 if predict(config, reporter=reporter).is_complete else 1
    elif command == "serve":
        from detseg.recipes.serve import serve

        serve(config, reporter=reporter)
    elif command == "client":
        from detseg.recipes.client import client

        return 0 if client(config, reporter=reporter) else 1
    elif command == "export":
        from detseg.recipes.export import export

        export(config, reporter=reporter)
    elif command == "selfcheck":
        from detseg.recipes.selfcheck import selfcheck

        selfcheck(config, reporter=reporter)
    elif command == "convert":
        from detseg.recipes.convert import convert

        convert(config, reporter=reporter)
    elif command == "describe":
        from detseg.recipes.describe import describe

        describe(config, reporter=reporter)
    elif command == "benchmark":
        from detseg.benchmarks.run import run_benchmark

        run_benchmark(config, reporter=reporter)
    else:
        from detseg.recipes.inspect import inspect

        errors = inspect(config, reporter=reporter).errors
        if errors:
            raise DataError(errors[0].message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
