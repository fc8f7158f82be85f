"""Traces to hold policies against, made from seeds."""
