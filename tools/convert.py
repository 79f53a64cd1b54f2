"""Write a data set in another format, with its images, into a new folder.

    python tools/convert.py DATA OUT --to yolo

prints what was read, what the format cannot hold, and what reading the output again gives.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # a process that loads or measures may import this file
    sys.exit(main(["convert", *sys.argv[1:]]))
