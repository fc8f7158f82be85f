"""Where a namespace's spool, snapshots, archive and set-aside history lie in the state directory."""

from pathlib import Path

from dtf.cli.invocation import Invocation
from dtf.settings.model import Settings


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


def archive_dir(invocation: Invocation, namespace: str) -> Path:
    """Where the archive of a namespace is unless a command is told otherwise."""
    return archive_dir_of(invocation.load().settings, invocation.project_dir, namespace)


def archive_dir_of(settings: Settings, project_dir: Path, namespace: str) -> Path:
    """The same, where the settings are at hand."""
    state = project_dir / settings.coordinator.state_dir
    return (project_dir / (settings.nats.archive_dir or state / "archive")) / namespace
