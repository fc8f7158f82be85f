"""Scaling: what a pool has to do, what it should be, and which rules say so. Pure."""
