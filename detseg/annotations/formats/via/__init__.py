"""Reader and writer of VGG Image Annotator JSON."""
