"""A recorded run continued in virtual time, with a fault: what would have happened if.

The coordinator's decide and evolve are the real ones; workers, links, the log and time are simulated,
and everything random comes from a seed, so that the same fork gives the same bytes.
"""
