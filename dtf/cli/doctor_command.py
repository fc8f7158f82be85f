"""`dtf doctor`: check this machine and say what to mend."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from dtf.adapters.system_clock import SystemClock
from dtf.cli import doctor_checks, doctor_services
from dtf.cli.doctor_checks import Finding, Level
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.stack import read_stack, remote_addresses
from dtf.settings.loader import LoadedSettings
from dtf.settings.project import state_dir


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(invocation: Invocation, as_json: bool) -> int:
    """Check this machine: versions, ports, disk, clock, broker, store, limits. Exit code 8: mend something.

    \b
    Example:
        dtf doctor
        dtf doctor --json | jq '.findings[] | select(.level == "mend")'
    """
    findings = []
    for finding in examine(invocation.load()):
        findings.append(finding)
        if not as_json:
            _print(finding)
    to_mend = sum(finding.level is Level.MEND for finding in findings)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings], "to_mend": to_mend}))
    else:
        click.echo(f"{to_mend} to mend" if to_mend else "nothing to mend")
    return ExitCode.UNHEALTHY if to_mend else ExitCode.OK


def examine(loaded: LoadedSettings) -> Iterator[Finding]:
    """Every finding, in the order in which a person would look."""
    settings, state = loaded.settings, state_dir(loaded.project_dir)
    embedded = read_stack(loaded.project_dir)
    is_running = embedded is not None
    yield from doctor_checks.check_versions()
    yield from doctor_checks.check_nats_server(settings)
    yield from doctor_checks.check_ports(settings, is_running=is_running)
    yield from doctor_checks.check_disk(state)
    yield from doctor_checks.check_clock(state, SystemClock().now_ns() / 1e9)
    yield from doctor_checks.check_limits()
    yield from doctor_checks.check_privacy(state)
    yield from doctor_checks.check_leftovers(state, is_running=is_running)
    yield from doctor_services.check_broker(settings, embedded)
    yield from doctor_services.check_store(settings, state, embedded)
    yield from doctor_services.check_coordinator(remote_addresses(settings) or embedded)


def _print(finding: Finding) -> None:
    click.echo(f"{finding.level:<4}  {finding.check:<20}  {finding.seen}")
    if finding.mend:
        click.echo(f"{'':<4}  {'':<20}  → {finding.mend}")
