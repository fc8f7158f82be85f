"""The real system under a seeded schedule of faults; see docs/reliability.md and `python -m tests.chaos --help`."""
