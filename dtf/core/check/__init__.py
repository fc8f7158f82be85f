"""The history checker: what must hold of every log, told by a small model of its own.

Nothing here uses the coordinator's decide or evolve: a fault of theirs must not hide itself. See
docs/checker.md for the properties, and `checker.HistoryChecker` for how to use it.
"""
