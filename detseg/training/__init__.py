"""A training run: choices, phases, loaders, trainer, results."""
