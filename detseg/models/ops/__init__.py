"""CPU kernels and tensor layouts that make training faster at equal results."""
