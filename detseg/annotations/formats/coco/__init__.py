"""Reader and writer of COCO JSON."""
