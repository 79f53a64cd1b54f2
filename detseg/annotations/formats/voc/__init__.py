"""Read and write Pascal VOC XML."""
