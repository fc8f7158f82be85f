"""`dtf workers`: list workers; `dtf workers drain|quarantine|release ID`."""

import json

import click
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import common_pb2, fleet_service_pb2
from dtf.cli.connection import ask_coordinator
from dtf.cli.invocation import Invocation
from dtf.client.client import CALL_TIMEOUT_SECONDS, Client
from dtf.client.owner import default_owner
from dtf.report.output import plain_line


@click.group(invoke_without_command=True)
@click.option("--all", "includes_gone", is_flag=True, help="Also those that left or were lost.")
@click.option("--pool", default="", help="Only this pool.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(ctx: click.Context, includes_gone: bool, pool: str, as_json: bool) -> None:
    """List workers; `drain`, `quarantine` and `release` act on one.

    \b
    Example:
        dtf workers
        dtf workers drain w-2 --reason "kernel update"
    """
    if ctx.invoked_subcommand is not None:
        return
    workers = ask_coordinator(
        ctx.obj, lambda client: client.list_workers(include_gone=includes_gone, pool=pool)
    )
    for worker in workers:
        click.echo(json.dumps(worker_document(worker)) if as_json else worker_line(worker))
    if not workers and not as_json:
        click.echo("no workers")


_reason = click.option("--reason", default="", help="Why, for the record.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object: the worker.")
_worker = click.argument("worker_id", metavar="ID")


@command.command()
@_worker
@_reason
@_json
@click.pass_obj
def drain(invocation: Invocation, worker_id: str, reason: str, as_json: bool) -> None:
    """Let a worker finish what it holds and take nothing new.

    \b
    Example:
        dtf workers drain w-2
    """

    async def ask(client: Client) -> fleet_service_pb2.Worker:
        request = fleet_service_pb2.DrainWorkerRequest(
            worker_id=worker_id, requested_by=default_owner(), reason=reason
        )
        response = await client.fleet.DrainWorker(
            request, metadata=client.metadata, timeout=CALL_TIMEOUT_SECONDS
        )
        return response.worker

    _tell(ask_coordinator(invocation, ask), as_json)


@command.command()
@_worker
@_reason
@_json
@click.pass_obj
def quarantine(invocation: Invocation, worker_id: str, reason: str, as_json: bool) -> None:
    """Trust a worker with nothing more; what it holds runs elsewhere.

    \b
    Example:
        dtf workers quarantine w-2 --reason "wrong results"
    """

    async def ask(client: Client) -> fleet_service_pb2.Worker:
        request = fleet_service_pb2.QuarantineWorkerRequest(
            worker_id=worker_id, requested_by=default_owner(), reason=reason
        )
        response = await client.fleet.QuarantineWorker(
            request, metadata=client.metadata, timeout=CALL_TIMEOUT_SECONDS
        )
        return response.worker

    _tell(ask_coordinator(invocation, ask), as_json)


@command.command()
@_worker
@_json
@click.pass_obj
def release(invocation: Invocation, worker_id: str, as_json: bool) -> None:
    """Let a drained or quarantined worker work again.

    \b
    Example:
        dtf workers release w-2
    """

    async def ask(client: Client) -> fleet_service_pb2.Worker:
        request = fleet_service_pb2.ReleaseWorkerRequest(worker_id=worker_id, requested_by=default_owner())
        response = await client.fleet.ReleaseWorker(
            request, metadata=client.metadata, timeout=CALL_TIMEOUT_SECONDS
        )
        return response.worker

    _tell(ask_coordinator(invocation, ask), as_json)


def _tell(worker: fleet_service_pb2.Worker, as_json: bool) -> None:
    click.echo(json.dumps(worker_document(worker)) if as_json else worker_line(worker))


def worker_document(worker: fleet_service_pb2.Worker) -> dict[str, object]:
    """The worker as JSON has it."""
    document: dict[str, object] = MessageToDict(worker, preserving_proto_field_name=True)
    return {**document, "state": _state(worker)}


def worker_line(worker: fleet_service_pb2.Worker) -> str:
    """ "w-2  active  local  2 slots, 1 lease, 118 cases done  host:4711"."""
    return plain_line(
        f"{worker.worker_id}  {_state(worker)}  {worker.pool}  {worker.slots} slots, {worker.lease_count} leases, "
        f"{worker.completed_count} cases done  {worker.host}:{worker.process_id}"
        + (f"  ({worker.reason})" if worker.reason else "")
    )


def _state(worker: fleet_service_pb2.Worker) -> str:
    return common_pb2.WorkerState.Name(worker.state).removeprefix("WORKER_STATE_").lower()
