"""Derive the seed of every random generator from its purpose, so that no random state has to be saved."""

from __future__ import annotations

import numpy as np


def derive_seed(*parts: int) -> int:
    """A 32-bit seed that depends only on ``parts`` (non-negative integers).

    ``derive_seed(run_seed, epoch, record, occurrence)`` seeds the augmentation of one sample,
    ``derive_seed(run_seed, rank, step)`` the global generators of one training step.
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
