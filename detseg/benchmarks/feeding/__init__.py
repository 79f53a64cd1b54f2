"""Measure how fast a data set can be loaded on this machine, stage by stage, and how many workers training needs."""
