"""Files, checksums, signals, machine information, processes and random seeds."""
