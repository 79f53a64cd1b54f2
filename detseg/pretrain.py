"""``python -m detseg.pretrain``: make starting weights from rendered scenes."""

from __future__ import annotations

import sys

from detseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
