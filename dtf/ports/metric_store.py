"""Where the trend analyzer writes what it measured, and what reports read."""
