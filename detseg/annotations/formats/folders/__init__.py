"""Reader of image folders with one folder per class."""
