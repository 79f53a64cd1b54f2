"""List the modules of a network: shapes, parameters, trainable or frozen, memory, multiply-adds.

    python tools/describe.py fasterrcnn_resnet50_fpn

prints a table; the argument may also be a run folder. ``--json`` prints all modules.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # loader and benchmark processes may import this file
    sys.exit(main(["describe", *sys.argv[1:]]))
