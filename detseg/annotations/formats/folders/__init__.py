"""Reader of image folders, one per class."""
