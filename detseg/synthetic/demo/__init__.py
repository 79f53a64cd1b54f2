"""Render the demo set: bolts, nuts and washers on a workbench."""
