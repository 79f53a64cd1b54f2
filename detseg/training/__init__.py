"""Run a training: automatic choices, phases, loaders, trainer, results."""
