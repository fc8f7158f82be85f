"""`dtf log archive`: old commits into verified files, and out of the stream."""

import json
from contextlib import AsyncExitStack
from pathlib import Path

import click

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.log_archive import open_archive
from dtf.adapters.log_archiving import Archived, archive_lock, archive_log, oldest_kept, purge_archived
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.invocation import Invocation
from dtf.cli.log_fold import progress
from dtf.cli.log_paths import archive_dir
from dtf.cli.log_source import namespace_of, run_log_work, snapshot_stores
from dtf.cli.project_broker import project_broker


@click.command("archive")
@click.option(
    "--to",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the archive. Default: that of nats.archive_dir, else .dtf/archive/NAMESPACE.",
)
@click.option("--namespace", default=None, help="Namespace, if not the settings'.")
@click.option("--keep-stream", is_flag=True, help="Archive to the log's end and purge nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation, directory: Path | None, namespace: str | None, keep_stream: bool, as_json: bool
) -> None:
    """Move commits below the oldest kept snapshot into files, and purge the stream of them.

    The files are read back before anything is purged. Commands that read the log go on to span archive
    and stream. May be interrupted at any time, and run as often as wished; works beside a coordinator.

    \b
    Example:
        dtf log archive
        dtf log archive --keep-stream --to /backup/dtf
        dtf replay --from .dtf/archive/default
    """
    name = namespace_of(invocation, namespace)
    target = directory or archive_dir(invocation, name)
    done = run_log_work(_archive(invocation, name, target, keep_stream))
    if as_json:
        click.echo(json.dumps({"directory": str(target), **_document(done)}))
        return
    click.echo(
        f"{done.message_count:,} messages in {done.segment_count} new segments; the archive {target} ends at "
        f"{done.archived_until:,}"
    )
    click.echo(
        f"{done.purged_count:,} messages purged; the stream begins at {done.first_kept:,}"
        if not keep_stream
        else f"nothing was purged; the stream begins at {done.first_kept:,}"
    )


async def _archive(invocation: Invocation, namespace: str, target: Path, keep_stream: bool) -> Archived:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(project_broker(invocation))
        log = await JetStreamLog.attach(nats, namespace, clock)
        stack.push_async_callback(log.close)
        stores = snapshot_stores(invocation, nats, namespace)
        for store in stores:
            stack.push_async_callback(store.close)
        head = await log.head()
        snapshot_at = None if keep_stream else await oldest_kept(stores, log)
        if snapshot_at is None and not keep_stream:
            raise CommandError(
                "no snapshot of this log is kept: without the stream's beginning no coordinator could start",
                "`dtf log snapshot` takes one; --keep-stream archives and purges nothing",
            )
        until = head.last_sequence if snapshot_at is None else snapshot_at - 1
        with archive_lock(target):
            before = open_archive(target, namespace)
            with progress(max(until - before.last_sequence, 0), "archiving") as bar:
                archive = await archive_log(
                    log, target, namespace=namespace, clock=clock, until=until, on_progress=bar.advance
                )
            first = after = head.first_sequence
            if snapshot_at is not None:
                first, after = await purge_archived(log, archive, snapshot_at)
        return Archived(
            segment_count=len(archive.segments) - len(before.segments),
            message_count=archive.last_sequence - before.last_sequence,
            archived_until=archive.last_sequence,
            first_kept=after,
            purged_count=after - first,
        )


def _document(done: Archived) -> dict[str, int]:
    return {
        "segments_added": done.segment_count,
        "messages_added": done.message_count,
        "archived_until": done.archived_until,
        "stream_begins_at": done.first_kept,
        "purged": done.purged_count,
    }
