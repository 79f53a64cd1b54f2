"""Randomness as a function: every generator is seeded by what it is for, so no random state is ever saved."""

from __future__ import annotations

import numpy as np


def derive_seed(*parts: int) -> int:
    """A 32-bit seed that depends on all ``parts`` (non-negative integers) and on nothing else.

    ``derive_seed(run_seed, epoch, record, occurrence)`` seeds the augmentation of one sample,
    ``derive_seed(run_seed, rank, step)`` the global generators of one training step.
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
