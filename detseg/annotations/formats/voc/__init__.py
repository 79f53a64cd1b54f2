"""Reader and writer of Pascal VOC XML."""
