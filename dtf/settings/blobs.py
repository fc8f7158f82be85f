"""Settings of what is stored beside the log: blobs (workspaces, large results) and output."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlobSettings:
    """How much is kept, and for how long. What a live run may need stays."""

    max_bytes: int = 50 * 2**30
    """Of blobs and output together; what was unused for longest goes first. 0: no limit."""
    max_age_days: float = 30.0
    """What nobody used for so long is removed; 0: it is kept."""
