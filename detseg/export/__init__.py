"""Export trained models to files that other programs run, and read these files."""
