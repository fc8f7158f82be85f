"""`dtf run [--] tests/…`: pytest with `--dtf`, as the user would type it."""

import asyncio
import json
import os
import secrets
import subprocess
import sys

import click

from dtf.cli.invocation import Invocation
from dtf.cli.run_command import RunOptions
from dtf.client.stack import StackAddresses, join_stack

INVOCATION_LABEL = "dtf.invocation"
"""Label by which `dtf run --json` finds the run that the pytest it started made."""
SUMMARY_PLUGIN = "dtf.cli.pytest_summary"


def run_pytest(invocation: Invocation, asked: RunOptions) -> int:
    """Run pytest over the pool and return its exit code; with --json its output goes to standard error."""
    loaded = asked.load(invocation)
    argv = pytest_command(asked)
    if not asked.as_json:
        argv[4:4] = ["-p", SUMMARY_PLUGIN]
    environment = {**os.environ, **asked.environment, **settings_environment(invocation, asked)}
    if not asked.as_json:
        sys.stdout.flush()
        os.execve(argv[0], argv, environment)
    label = secrets.token_hex(8)
    environment["DTF_RUN_LABELS"] = ",".join(
        f"{key}={value}"
        for key, value in {**loaded.settings.run.labels, **asked.labels, INVOCATION_LABEL: label}.items()
    )
    with join_stack(loaded.project_dir, loaded.settings) as membership:
        code = subprocess.run(argv, env=environment, stdout=sys.stderr, check=False).returncode
        click.echo(json.dumps(asyncio.run(_find_result(membership.addresses, label, code))))
    return code


def pytest_command(asked: RunOptions) -> list[str]:
    """The pytest command line."""
    argv = [sys.executable, "-m", "pytest", "--dtf"]
    if asked.workers is not None:
        argv += ["--dtf-workers", str(asked.workers)]
    return [*argv, *asked.words]


def settings_environment(invocation: Invocation, asked: RunOptions) -> dict[str, str]:
    """Settings that pytest's process should see as this one does, as environment variables."""
    chosen = {
        "run.suite": asked.suite,
        "run.test_retries": asked.retries,
        "run.timeout_seconds": asked.timeout_seconds,
        "run.workspace": asked.workspace,
        **invocation.flags,
    }
    return {
        f"DTF_{path.replace('.', '_').upper()}": str(value)
        for path, value in chosen.items()
        if value is not None
    }


async def _find_result(addresses: StackAddresses, label: str, code: int) -> dict[str, object]:
    from dtf.cli.connection import client_of
    from dtf.cli.run_result import result_document

    async with client_of(addresses) as client:
        for run in await client.list_runs(limit=50):
            if run.labels.get(INVOCATION_LABEL) == label:
                return {**result_document(run, None), "exit_code": code}
    return {"run_id": None, "exit_code": code}
