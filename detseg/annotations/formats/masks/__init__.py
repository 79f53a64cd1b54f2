"""Reader of mask images, such as PNG label images."""
