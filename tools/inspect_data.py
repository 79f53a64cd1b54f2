"""Summarize a data set, list its errors, and draw some of its records.

    python tools/inspect_data.py DATA

prints format, classes, counts and sizes, and writes a sheet of drawn records.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # loader and benchmark processes may import this file
    sys.exit(main(["inspect", *sys.argv[1:]]))
