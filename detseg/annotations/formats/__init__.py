"""Readers and writers of annotation formats, one small package for each; all use the same table."""
