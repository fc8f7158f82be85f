"""The processes that descend from this one, and how to end some or all of them.

On Linux this process is a child subreaper: a descendant whose parent dies becomes its child, so
nothing that was started leaves its view, whatever sessions and groups it makes (prctl(2),
PR_SET_CHILD_SUBREAPER). Elsewhere a process that leaves its group and loses its parent is lost.

Which tree an orphan belongs to is read from its environment, where every process of a tree has
the cookie its leader was started with, unless it took the trouble to remove it.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

COOKIE_VARIABLE = "DTF_PROCESS_TREE"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_PATIENCE_SECONDS = 5.0
_IS_LINUX = sys.platform == "linux"
_HAS_CHILDREN_FILES = Path(f"/proc/self/task/{os.getpid()}/children").exists()
_libc = ctypes.CDLL(None, use_errno=True) if _IS_LINUX else None


def become_subreaper() -> None:
    """Become the parent of descendants that lose theirs (Linux only)."""
    if _libc is not None and _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def die_with_parent() -> None:
    """In a new child: be killed when the parent dies (Linux only). Belt and braces."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants(of: int) -> list[int]:
    """Every living descendant of process `of`, parents before children, zombies left out."""
    found: list[int] = []
    queue = [of]
    while queue:
        children = _children(queue.pop())
        found += children
        queue += children
    return found


def _children(process_id: int) -> list[int]:
    if not _HAS_CHILDREN_FILES:
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(process_id).children()]
        return []
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process_id}/task").iterdir():
            with contextlib.suppress(OSError):
                children += (int(word) for word in (task / "children").read_text().split())
    return children


def is_alive(process_id: int) -> bool:
    """Whether it exists and is no zombie."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE)
    return False


def cookie_of(process_id: int) -> str:
    """The cookie in a process's environment; "" if it has none or may not be read."""
    with contextlib.suppress(psutil.Error, OSError):
        return str(psutil.Process(process_id).environ().get(COOKIE_VARIABLE, ""))
    return ""


def members(leader: int, cookie: str, other_leaders: Iterable[int]) -> list[int]:
    """The living processes of a leader's tree, the leader left out: its descendants and its orphans."""
    tree = descendants(leader)
    others = {leader, *other_leaders}
    for orphan in _children(os.getpid()):
        if orphan not in others and cookie_of(orphan) == cookie:
            tree += [orphan, *descendants(orphan)]
    return [process_id for process_id in tree if is_alive(process_id)]


def kill_until_none(find: Callable[[], list[int]]) -> bool:
    """SIGKILL what `find` finds until it finds nothing, for it may fork meanwhile; False: something stays."""
    until = time.monotonic() + _KILL_PATIENCE_SECONDS
    # Twice, because the kernel may skip a child while its sibling exits (proc(5), children).
    while found := find() or find():
        if time.monotonic() > until:
            return False
        for process_id in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process_id, signal.SIGKILL)
        time.sleep(0.001)
    return True


def kill_group(group: int) -> None:
    """SIGKILL a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
