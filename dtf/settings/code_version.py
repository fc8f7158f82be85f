"""Which code decides: the package's version and a digest of the sources that every decision rests on.

Two coordinators with one code version decide the same on the same state, so that what one recorded
the other derives again (`dtf replay`). The package's version alone would promise that of two
working copies that differ.
"""

import functools
import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files

_PACKAGES = ("dtf.core.run", "dtf.core.fleet", "dtf.coordinator", "dtf.api.v1")
_DECIDING = {
    "dtf.coordinator": ("inputs.py",),
    "dtf.api.v1": ("common_pb2.py", "events_pb2.py", "run_service_pb2.py", "worker_service_pb2.py"),
}
"""Of these packages only what records and encodes decisions; of the others every module."""
_TELLING = frozenset(
    {
        *(
            "story.py",
            "run_story.py",
            "worker_story.py",
            "waiting.py",
            "portrait.py",
            "proof.py",
            "unfold.py",
        ),
        *("summary.py", "summary_fold.py", "pool_summary.py", "invariants.py"),
    }
)
"""Modules that only tell what was decided; a test sees to it that no decision imports one."""
_DIGEST_LENGTH = 8


@functools.cache
def code_version() -> str:
    """As "0.1.0+1f3a9c02"; without the digest where the sources are not at hand."""
    hasher = hashlib.sha256()
    count = 0
    for name, content in _sources():
        for part in (name.encode(), content):
            hasher.update(len(part).to_bytes(8, "big") + part)
        count += 1
    digest = f"+{hasher.hexdigest()[:_DIGEST_LENGTH]}" if count else ""
    return version("dtf") + digest


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        for entry in sorted(files(package).iterdir(), key=lambda found: found.name):
            decides = entry.name.endswith(".py") and entry.name not in _TELLING
            if decides and entry.name in _DECIDING.get(package, (entry.name,)):
                yield f"{package}.{entry.name}", entry.read_bytes()
