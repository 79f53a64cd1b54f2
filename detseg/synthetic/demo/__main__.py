"""Render the demo set into a folder: ``python -m detseg.synthetic.demo FOLDER``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detseg.synthetic.demo.render import render


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m detseg.synthetic.demo FOLDER [--train N] [--val N] [--seed S]``."""
    parser = argparse.ArgumentParser(
        prog="python -m detseg.synthetic.demo", description="Render the demo set into a folder."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=120, help="training images (default 120)")
    parser.add_argument("--val", type=int, default=40, help="validation images (default 40)")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed; each seed renders a different set (default 0: data/demo)"
    )
    options = parser.parse_args(arguments)
    render(options.folder, train=options.train, val=options.val, seed=options.seed)
    print(f"{options.folder}: {options.train} + {options.val} images")


if __name__ == "__main__":
    main()
