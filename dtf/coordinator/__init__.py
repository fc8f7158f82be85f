"""The coordinator: decides, commits, and serves clients and workers."""
