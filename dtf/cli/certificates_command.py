"""`dtf certificates`: the authority of this project's servers, and their certificates."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtf.adapters.system_clock import SystemClock
from dtf.cli.certificate_choice import certificates_dir
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.rpc.certificates import CertificateError

if TYPE_CHECKING:
    from dtf.adapters.certificates import OwnAuthority


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the certificates of dtf's own authority in this project; `rotate` makes another authority.

    \b
    Example:
        dtf certificates
        dtf certificates rotate
    """
    if ctx.invoked_subcommand is not None:
        return
    authority = _authority(ctx.obj)
    if not authority.exists:
        if not as_json:
            click.echo("no authority of dtf's own; it is made when a server first listens beyond loopback")
        return
    try:
        for document in _documents(authority):
            click.echo(json.dumps(document) if as_json else _line(document))
    except CertificateError as error:
        raise _as_command_error(error) from error


@command.command()
@click.option(
    "--distrust-former",
    is_flag=True,
    help="Who trusts the former authority is cut off at once: its key is known to others.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the new authority.")
@click.pass_obj
def rotate(invocation: Invocation, distrust_former: bool, as_json: bool) -> None:
    """Make another authority. Servers show its certificates from the next connection on, without a restart.

    Join tokens from before are refused from then on. Workers and clients that trust the former authority still
    reach the servers, until the next rotation or one with --distrust-former.

    \b
    Example:
        dtf certificates rotate
        dtf certificates rotate --distrust-former
    """
    from dtf.adapters.certificates import describe

    authority = _authority(invocation)
    if not authority.exists:
        raise CommandError(
            f"there is no authority of dtf's own in {authority.directory}",
            "it is made when a server first listens beyond loopback",
        )
    try:
        made = authority.rotate(keeps_former=not distrust_former)
    except CertificateError as error:
        raise _as_command_error(error) from error
    document = {"kind": "authority", "file": str(authority.certificate_file), **describe(made.certificate)}
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(_line(document))
    click.echo("make new join tokens: those from before are refused")
    if distrust_former:
        click.echo(
            f"give {authority.certificate_file} to clients of other machines; connected workers must join anew"
        )


def _authority(invocation: Invocation) -> "OwnAuthority":
    from dtf.adapters.certificates import OwnAuthority

    state = invocation.project_dir / Path(invocation.load().settings.coordinator.state_dir)
    return OwnAuthority(certificates_dir(state), SystemClock())


def _documents(authority: "OwnAuthority") -> Iterator[dict[str, Any]]:
    from dtf.adapters.certificates import describe

    own = authority.load().certificate
    yield {"kind": "authority", "file": str(authority.certificate_file), **describe(own)}
    former = authority.former()
    if former is not None:
        yield {
            "kind": "former",
            "file": str(authority.directory / "former.pem"),
            **describe(former),
        }
    for role, certificate in authority.servers():
        yield {"kind": role, "file": str(authority.directory / f"{role}.pem"), **describe(certificate)}


def _line(document: dict[str, Any]) -> str:
    names = f"  for {', '.join(document['names'])}" if document["names"] else ""
    return f"{document['kind']}  SHA-256 {document['fingerprint']}  until {document['expires'][:10]}{names}"


def _as_command_error(error: CertificateError) -> CommandError:
    return CommandError(str(error), exit_code=ExitCode.FAILED)
