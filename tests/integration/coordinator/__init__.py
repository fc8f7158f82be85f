"""The coordinator over real gRPC, and as a process on a real broker."""
