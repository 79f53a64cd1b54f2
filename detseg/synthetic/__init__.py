"""Render images with exact annotations."""
