"""`dtf worker`: run what a coordinator leases, until told to leave."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import worker_service_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.joining import NEW_TOKEN, hide_token, peer_of, read_invitation
from dtf.cli.lifeline import watch_lifeline
from dtf.client.connect import peer, read_token
from dtf.rpc.channel import Peer, parse_addresses
from dtf.rpc.invitation import Invitation
from dtf.settings.loader import DEFAULT
from dtf.settings.model import WorkerSettings
from dtf.worker.launcher_client import LauncherLost
from dtf.worker.process import Worker
from dtf.worker.runner_pool import RunnersBroken
from dtf.worker.session import NoCoordinator, SessionRefused, SessionReplaced

LAUNCH_VARIABLE = "DTF_WORKER_LAUNCH_ID"


def _labels(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not separator or not key.strip():
            raise click.BadParameter(f"{value!r} is not key=value, as gpu=a100")
        labels[key.strip()] = text.strip()
    return labels


@click.command()
@click.option("--server", metavar="HOST:PORT[,…]", help="The coordinator(s). Default: worker.server.")
@click.option("--token-file", metavar="FILE", help="File with the coordinator's bearer token.")
@click.option("--join", "join", metavar="TOKEN", help="Join token: the line of `dtf token create`.")
@click.option("--join-file", metavar="FILE", help="File with the join token.")
@click.option("--pool", help="Pool it joins.")
@click.option("--name", help="Stable identity. Default: the coordinator gives one.")
@click.option("--slots", type=click.IntRange(1, 1024), help="Attempts it runs at once.")
@click.option(
    "--label", "labels", multiple=True, callback=_labels, metavar="KEY=VALUE", help="A label to match."
)
@click.pass_obj
def command(
    invocation: Invocation,
    server: str | None,
    token_file: str | None,
    join: str | None,
    join_file: str | None,
    pool: str | None,
    name: str | None,
    slots: int | None,
    labels: dict[str, str],
) -> int:
    """Run what a coordinator leases, until told to leave.

    Says {"ready": true, …} on standard output when its session is open. SIGTERM lets what runs end
    and gives the rest back; a second one stops at once. Exit codes: 0 left in good order, 1 refused
    by the coordinator or replaced by another worker of its name, 2 stopped by force, 3 a fault of
    this machine or of dtf, 4 usage, 6 no coordinator answers.

    A worker of another machine joins by a token, which says where the coordinator is, whom to trust and
    which pool it is for: --join, the variable DTF_JOIN_TOKEN or --join-file (docs/joining.md).

    \b
    Example:
        dtf worker --join dtfjoin1_…
        dtf worker --server 10.0.0.5:7070 --token-file token --slots 4 --label gpu=a100
    """
    hide_token(join, join_file)
    loaded = invocation.load(
        worker__server=server,
        worker__token_file=token_file,
        worker__join_file=join_file,
        worker__pool=pool,
        worker__name=name,
        worker__slots=slots,
    )
    own = loaded.settings.worker
    invitation = read_invitation(own.join_file) if own.join_file else None
    if invitation is not None:
        own = replace(
            own,
            server=own.server or ",".join(invitation.addresses),
            pool=invitation.pool if loaded.sources["worker.pool"] == DEFAULT else own.pool,
        )
    own = replace(
        own,
        labels={**own.labels, **labels},
        # From the environment also where the settings come whole from a file.
        launch_id=own.launch_id or os.environ.get(LAUNCH_VARIABLE, ""),
    )
    watch_lifeline()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return asyncio.run(_serve(_checked(own), invitation))


def _checked(settings: WorkerSettings) -> WorkerSettings:
    """The settings, if a worker can start with them. Raises CommandError."""
    if not settings.server:
        raise CommandError(
            "no coordinator is named",
            "pass --server host:port, or set [worker] server",
            exit_code=ExitCode.USAGE,
        )
    try:
        peer(settings.server, settings.token_file, settings.certificate_authority_file)
    except ValueError as error:
        raise CommandError(
            str(error), "--server takes host:port[,host:port…]", exit_code=ExitCode.USAGE
        ) from None
    except OSError as error:
        raise CommandError(
            f"cannot read {_file_in(error, settings)}: {error.strerror}",
            "pass --token-file, the coordinator's own; [worker] certificate_authority_file names its authority",
            exit_code=ExitCode.USAGE,
        ) from None
    return settings


def _file_in(error: OSError, settings: WorkerSettings) -> str:
    kind = "certificate" if error.filename == settings.certificate_authority_file else "token"
    return f"the {kind} file {error.filename}"


async def _serve(settings: WorkerSettings, invitation: Invitation | None) -> int:
    clock = SystemClock()
    coordinator: Peer | None = None
    if invitation is not None:
        coordinator = await peer_of(invitation, parse_addresses(settings.server), clock)
    worker = Worker(
        settings,
        token=read_token(settings.token_file),
        clock=clock,
        on_session=_tell_ready,
        peer=coordinator,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.request_stop)
    try:
        return await worker.run()
    except NoCoordinator as error:
        raise CommandError(
            f"no coordinator at {settings.server}: {error}",
            "start it, or correct --server",
            exit_code=ExitCode.UNAVAILABLE,
        ) from None
    except SessionRefused as error:
        raise CommandError(
            f"the coordinator at {settings.server} refused this worker: {error}",
            NEW_TOKEN
            if invitation is not None
            else "--token-file must be the coordinator's own, and both of one version of dtf",
        ) from None
    except SessionReplaced as error:
        raise CommandError(
            f"another worker took this one's place: {error}", "give each worker a --name of its own"
        ) from None
    except RunnersBroken as error:
        raise CommandError(
            f"user code cannot be run on this machine: {error}",
            "`dtf doctor` checks the machine",
            exit_code=ExitCode.INTERNAL,
        ) from None
    except LauncherLost as error:
        raise CommandError(str(error), "start the worker again", exit_code=ExitCode.INTERNAL) from None


def _tell_ready(opened: worker_service_pb2.CreateSessionResponse) -> None:
    ready = {"ready": True, "worker_id": opened.worker_id, "incarnation": opened.incarnation}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
