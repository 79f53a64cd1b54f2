"""Compare with a baseline: accuracy, starting weights, speed."""
