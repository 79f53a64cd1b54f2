"""Reader and writer of CVAT XML."""
