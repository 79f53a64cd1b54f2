"""Write a data set in another format, with its images, into a new folder.

    python tools/convert.py DATA OUT --to yolo

prints what was read, what the format cannot store, and the summary of the output when it is read again.
"""

import sys

from detseg.cli import main

if __name__ == "__main__":  # loader and benchmark processes may import this file
    sys.exit(main(["convert", *sys.argv[1:]]))
