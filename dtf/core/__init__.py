"""The rules. No I/O, no clock, no randomness, no logging: they come in as arguments."""
