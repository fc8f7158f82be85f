"""Who asks, for the record. Apart from the client, so that pytest's start does not import gRPC for it."""

import getpass
import socket


def default_owner() -> str:
    """user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
