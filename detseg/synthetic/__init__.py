"""Rendered images with exact annotations."""
