"""Say what a data set holds, name what is broken in it, and draw some of it.

    python tools/inspect_data.py DATA

prints format, classes, counts and sizes, and writes a sheet of drawn records.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # a process that loads or measures may import this file
    sys.exit(main(["inspect", *sys.argv[1:]]))
