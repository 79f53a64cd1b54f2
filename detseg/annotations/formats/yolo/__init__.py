"""Reader and writer of YOLO text files."""
