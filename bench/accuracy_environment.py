"""The peers' own environment, and asking them; progress on standard error."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Peer:
    """Something a user would pick instead."""

    name: str
    module: str
    requirement: str


PEERS = (
    Peer("ruptures", "ruptures", "ruptures>=1.1.10"),
    Peer("otava", "otava", "apache-otava>=0.8"),
    Peer("asv", "asv", "asv>=0.6.4"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer said of a request."""

    name: str
    answers: list[Any]
    seconds: float


def say(words: str) -> None:
    """Progress, apart from the figures."""
    print(words, file=sys.stderr, flush=True)


def available_peers(names: Sequence[str]) -> list[Peer]:
    """The peers that can be imported in their environment, installed now if need be; others are named."""
    wanted = [peer for peer in PEERS if peer.name in names]
    return [peer for peer in wanted if _is_ready(peer)]


def environment() -> Path:
    """The interpreter of the peers' environment, outside of the tree; made the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dtf" / "bench-accuracy"
    python = cache / "bin" / "python"
    if not python.exists():
        say(f"making an environment for the peers in {cache}")
        subprocess.run([sys.executable, "-m", "venv", cache], check=True)
    return python


def _is_ready(peer: Peer) -> bool:
    python = environment()
    if _can_import(python, peer.module):
        return True
    say(f"installing {peer.requirement} into {python.parent.parent}")
    done = subprocess.run([python, *PIP, peer.requirement], check=False, capture_output=True, text=True)
    if done.returncode or not _can_import(python, peer.module):
        say(f"{peer.name} is left out: it cannot be installed here ({_last_line(done.stderr)})")
        return False
    return True


def _can_import(python: Path, module: str) -> bool:
    return not subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode


def ask(peer: Peer, request: dict[str, Any]) -> Answer | None:
    """A peer's answer to a request of accuracy_peers.py; None, and a word, if it failed."""
    script = Path(__file__).with_name("accuracy_peers.py")
    done = subprocess.run(
        [environment(), "-W", "ignore", script, peer.name],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    if done.returncode:
        say(f"{peer.name} is left out: {_last_line(done.stderr)}")
        return None
    return Answer(**json.loads(_last_line(done.stdout)))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
