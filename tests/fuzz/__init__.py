"""A seeded fuzzer of everything that reads files or options: ``python -m tests.fuzz --inputs 100000``."""
