"""Run ``python -m detseg COMMAND``: the same as the command ``detseg``, for ``torchrun -m``."""

from __future__ import annotations

import sys

from detseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
