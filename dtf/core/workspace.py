"""What a packed working tree is: entries with a manifest, and paths that mean the same in another place.

The manifest is one line an entry, in the order of their paths as bytes, each ended by a zero byte:

    file 644 SHA256 path      file 755 SHA256 path      link TARGET-SHA256 path

Its SHA-256 names the tree: two trees of one digest have the same files, programs and links, whoever
packed them, whenever and from where.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PACKED_TIME = 1_600_000_000
"""When the files of a tree say they were written, in seconds since 1970: a constant, and after 1980, which zip files need."""
_PATH_BEGINS = r"(?:(?<![\w.~/-])|(?<=\\[nrtfb]))"
"""What may come before a path for it to be one from the root on: the end of another word does not, but for \\n in JSON."""
_PATH_ENDS = r"(?=$|[/:;,=\"'\s\[\])>\\])"
"""What may follow the name of a directory for it to be meant, and not one whose name begins alike."""


class UnsafePath(ValueError):
    """A path that leads, or could lead, out of its tree."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a symbolic link of a tree."""

    path: str
    """Relative, parts separated by '/'; bytes that are no UTF-8 as surrogates."""
    content: str
    """SHA-256 of the file's content, or of the link's target."""
    is_program: bool = False
    """Whether its owner may execute it."""
    is_link: bool = False

    @property
    def line(self) -> bytes:
        """Its line of the manifest."""
        kind = "link" if self.is_link else f"file {755 if self.is_program else 644}"
        return f"{kind} {self.content} {self.path}\0".encode(errors="surrogateescape")


def manifest_digest(entries: Iterable[Entry]) -> str:
    """The SHA-256 of the entries' manifest."""
    hasher = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: encoded(entry.path)):
        hasher.update(entry.line)
    return hasher.hexdigest()


def encoded(text: str) -> bytes:
    """A path as the bytes it has on disk."""
    return text.encode(errors="surrogateescape")


def text_digest(text: str) -> str:
    """The SHA-256 of a link's target."""
    return hashlib.sha256(encoded(text)).hexdigest()


def check_path(path: str) -> None:
    """Raises UnsafePath unless `path` is relative, plain and inside its tree."""
    if not path or path.startswith("/") or "\0" in path:
        raise UnsafePath(f"{path!r} is not a path inside a tree")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise UnsafePath(f"{path!r} is not a plain path: it has an empty part, '.' or '..'")


def check_link(path: str, target: str) -> None:
    """Raises UnsafePath if the link at `path` to `target` leads out of the tree."""
    if not target or "\0" in target:
        raise UnsafePath(f"the link {path!r} has no target that can be named")
    there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if target.startswith("/") or there == ".." or there.startswith("../"):
        raise UnsafePath(f"the link {path!r} leads out of the tree, to {target!r}")


@dataclass(frozen=True, slots=True)
class Relocation:
    """A tree that is at `root` for its owner and at `local` here; both absolute, without '/' at the end."""

    root: str
    local: str

    def text(self, text: str) -> str:
        """`text`, where each path in the owner's tree is that of the same name here."""
        return _replaced(text, self.root, self.local)

    def texts(self, texts: Iterable[str]) -> list[str]:
        """Each of `texts` as `text` has it."""
        return [self.text(text) for text in texts]

    def mapping(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The values as `text` has them."""
        return {name: self.text(value) for name, value in texts.items()}

    def inside(self, paths: Iterable[str]) -> list[str]:
        """Those of `paths` that are in the owner's tree, as they are here; others mean nothing here."""
        return [self.text(path) for path in paths if path == self.root or path.startswith(f"{self.root}/")]

    def back(self, text: str) -> str:
        """`text`, which may be JSON, where each path in the tree here is the owner's."""
        return _replaced(text, self.local, self.root)


def _replaced(text: str, old: str, new: str) -> str:
    if old == new or old not in text:
        return text
    return re.sub(rf"{_PATH_BEGINS}{re.escape(old)}{_PATH_ENDS}", lambda _: new, text)
