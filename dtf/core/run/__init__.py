"""Runs, tasks, attempts and verdicts: decide, evolve, placement, sharding."""
