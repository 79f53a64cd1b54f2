"""Reader of mask PNGs."""
