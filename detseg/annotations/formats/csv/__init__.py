"""Readers and writers of CSV tables of boxes, landmarks and labels."""
