"""Streams recorded from real runs, and what recorded them."""
