"""Files, checksums, signals, processes and random seeds: what the operating system and the machine are asked for."""
