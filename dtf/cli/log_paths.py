"""Where a namespace's spool, snapshots and set-aside history lie in the state directory."""

from pathlib import Path

from dtf.cli.invocation import Invocation


def spool_dir(invocation: Invocation, namespace: str) -> Path:
    """Commits on their way to the log, since the oldest kept snapshot."""
    return _state(invocation) / "spool" / namespace


def snapshots_dir(invocation: Invocation, namespace: str) -> Path:
    """Snapshots of the log."""
    return _state(invocation) / "snapshots" / namespace


def set_aside_dir(invocation: Invocation, namespace: str) -> Path:
    """What `dtf log repair --accept-loss` put away."""
    return _state(invocation) / "set-aside" / namespace


def _state(invocation: Invocation) -> Path:
    return invocation.project_dir / invocation.load().settings.coordinator.state_dir
