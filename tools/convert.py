"""Write a data set in another format, with its pictures, into a new folder.

    python tools/convert.py DATA OUT --to yolo

prints what was read, what the format cannot hold, and what reading the output again gives.
"""

import sys

from detseg.cli import main

sys.exit(main(["convert", *sys.argv[1:]]))
