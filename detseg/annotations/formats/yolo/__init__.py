"""Read and write YOLO text files."""
