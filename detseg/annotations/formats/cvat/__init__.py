"""Read and write CVAT XML."""
