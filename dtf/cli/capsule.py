"""A capsule: one file with what a run needs to be replayed elsewhere, and what it ran on.

    stream file, version 2 (dtf/adapters/stream_file.py)
        attachment "capsule.json"   the manifest: run, settings without secrets, versions, expected hashes
        attachment "snapshot"       state and chain before the slice, unless it begins at 1
        the slice of the log from there to the run's end

The slice begins where no decision goes on from the commit before, so that every decision in it can be
derived again. A redacted capsule is written from a log that was redacted from its beginning and chained
anew: the hashes are its own, the decisions are the same, which is proved before it is handed out.
"""

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtf.adapters.stream_file import StreamFile, StreamFileHeader, StreamFileWriter, writing
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.log_fold import Fold, earliest_fold, fold_to, nearest_fold, progress
from dtf.cli.log_source import SNAPSHOT_ATTACHMENT, FileSource, LogSource, open_file
from dtf.cli.story_subject import RunSpan
from dtf.core.chain import ChainReader
from dtf.core.events import parse_commit
from dtf.core.run.proof import Checkpoint, Proof, ProofFailed
from dtf.core.run.redaction import NotRedactable, Redactor
from dtf.core.run.state_hash import SCHEMA_VERSION, state_hash
from dtf.core.snapshot import take
from dtf.ports.event_log import StoredCommit
from dtf.ports.subjects import RUNS_HEADER, TYPES_HEADER
from dtf.settings.code_version import code_version

MANIFEST_ATTACHMENT = "capsule.json"
CAPSULE_VERSION = 1


@dataclass(frozen=True, slots=True)
class WrittenCapsule:
    """What was written."""

    path: Path
    message_count: int
    first_sequence: int
    last_sequence: int
    is_proved: bool
    note: str
    """What the proof of it says where it fails, here as elsewhere."""


async def write_capsule(
    source: LogSource, span: RunSpan, path: Path, wishes: frozenset[str], about: Mapping[str, Any]
) -> WrittenCapsule:
    """Write the run's capsule to `path`. Raises CommandError, ChainBroken, LogError, OSError."""
    base = await _settled_before(source, span.first_sequence)
    body = path.with_name(f".{path.name}.body")
    header = StreamFileHeader("events", source.namespace, code_version(), SystemClock().now_ns())
    try:
        with writing(body, header) as writer:
            snapshot, end = await _write_slice(source, span, base, wishes, writer)
            count = writer.message_count
        manifest = {
            "capsule_version": CAPSULE_VERSION,
            "run": span.run_id,
            "run_is_over": span.is_over,
            "namespace": source.namespace,
            "first_sequence": base + 1,
            "last_sequence": end.chain.sequence,
            "last_hash": end.chain.last_hash.hex(),
            "state_hash": state_hash(end.state),
            "schema_version": SCHEMA_VERSION,
            "code_version": code_version(),
            "redacted": sorted(wishes),
            "is_rechained": bool(wishes),
            **about,
        }
        attachments = {MANIFEST_ATTACHMENT: json.dumps(manifest, indent=1, sort_keys=True).encode()}
        if snapshot:
            attachments[SNAPSHOT_ATTACHMENT] = snapshot
        with writing(path, header, attachments) as final, StreamFile(body) as stream:
            for message in stream:
                final.write(message)
    finally:
        body.unlink(missing_ok=True)
    note = await _note(open_file(path), derives_all=False)
    if wishes:
        await _compare_with_original(source, span, base, path)
    return WrittenCapsule(path, count, base + 1, end.chain.sequence, not note, note)


def manifest_of(source: LogSource) -> Mapping[str, Any] | None:
    """The manifest of a capsule; None for another source. Raises CommandError for one that cannot be read."""
    encoded = source.attachments.get(MANIFEST_ATTACHMENT) if isinstance(source, FileSource) else None
    if encoded is None:
        return None
    try:
        manifest = json.loads(encoded)
        found = int(manifest["capsule_version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CommandError(f"{source.name}: its capsule.json cannot be read; get the file again") from error
    if found > CAPSULE_VERSION:
        raise CommandError(
            f"{source.name} is a capsule of version {found}, this dtf reads {CAPSULE_VERSION}",
            f"dtf {manifest.get('code_version', '')} wrote it; install one as new as that",
        )
    return dict(manifest)


def expected_of(manifest: Mapping[str, Any]) -> dict[int, Checkpoint]:
    """What log and state must come to, as far as this version hashes states as the writer's did."""
    try:
        if manifest["schema_version"] != SCHEMA_VERSION:
            return {}
        last = int(manifest["last_sequence"])
        return {last: Checkpoint(last, str(manifest["last_hash"]), str(manifest["state_hash"]))}
    except (KeyError, TypeError, ValueError):
        return {}


async def _note(source: LogSource, *, derives_all: bool) -> str:
    """What `dtf replay` would say against a source; "" if it is proved."""
    return await _prove(source, await earliest_fold(source), None, derives_all=derives_all)


async def _compare_with_original(source: LogSource, span: RunSpan, base: int, path: Path) -> None:
    """Every decision that this code derives from the log, it derives from the redacted one. Raises CommandError."""
    found = await _note(open_file(path), derives_all=True)
    if not found:
        return
    fold = await fold_to(source, await nearest_fold(source, base), base)
    if await _prove(source, fold, span.last_sequence, derives_all=True):
        return
    _remove(path)
    raise CommandError(
        f"redacted, the run no longer replays ({found}); nothing was written",
        "leave out --redact, or report this with the run's `dtf events export`, if it may be seen",
    )


def _remove(path: Path) -> None:
    path.unlink()


async def _prove(source: LogSource, fold: Fold, until: int | None, *, derives_all: bool) -> str:
    proof = Proof(code_version(), derives_all=derives_all, chain=fold.chain, state=fold.state)
    try:
        async for batch in source.read(fold.chain.sequence, until):
            for message in batch:
                proof.take(message.sequence, message.payload, message.message_id)
        proof.finish()
    except ProofFailed as error:
        return str(error)
    return ""


async def _settled_before(source: LogSource, first: int) -> int:
    """The last sequence before `first` whose commit no decision of the next goes on from."""
    head = await source.head()
    base = first - 1
    while base >= head.first_sequence:
        commit = None
        async for batch in source.read(base - 1, base):
            commit = parse_commit(batch[0].payload, batch[0].message_id)
        if commit is None or not commit.inputs or not commit.inputs[-1].continues:
            break
        base -= 1
    return base


async def _write_slice(
    source: LogSource, span: RunSpan, base: int, wishes: frozenset[str], writer: StreamFileWriter
) -> tuple[bytes, Fold]:
    """Write what follows `base`; the snapshot there ("" at the log's beginning) and the fold at the end."""
    if wishes:
        fold, messages = Fold(), _redacted(source, span.last_sequence, wishes)
        if (await source.head()).first_sequence > 1:
            raise CommandError(
                f"{source.name} does not begin at 1, and a redacted capsule is written from the beginning on",
                "name the archive with --from DIRECTORY",
            )
    else:
        fold = await fold_to(source, await nearest_fold(source, base), base)
        messages = _as_they_are(source, base, span.last_sequence)
    snapshot = b""
    with progress(span.last_sequence - fold.chain.sequence, "writing the capsule") as bar:
        if fold.chain.sequence == base and base:
            snapshot = take(fold.state, fold.chain, code_version=code_version())
        async for message in messages:
            fold.take(message)
            if message.sequence > base:
                writer.write(message)
            elif message.sequence == base:
                snapshot = take(fold.state, fold.chain, code_version=code_version())
            bar.advance(1)
    return snapshot, fold


async def _as_they_are(source: LogSource, after: int, until: int) -> AsyncIterator[StoredCommit]:
    async for batch in source.read(after, until):
        for message in batch:
            yield message


async def _redacted(source: LogSource, until: int, wishes: frozenset[str]) -> AsyncIterator[StoredCommit]:
    """The log from its beginning, redacted and chained anew; what is no commit of it becomes empty."""
    redactor = Redactor(secrets.token_bytes(32), names="names" in wishes, output="output" in wishes)
    chain, previous = ChainReader(), b""
    async for message in _as_they_are(source, 0, until):
        commit = chain.accept(message.sequence, message.payload, message.message_id)
        if commit is None:
            yield StoredCommit(message.sequence, b"", "", {})
            continue
        try:
            redactor.redact(commit)
        except NotRedactable as error:
            raise CommandError(f"at sequence {message.sequence}: {error}; nothing was written") from error
        commit.prev_hash = previous
        payload = commit.SerializeToString(deterministic=True)
        previous = hashlib.sha256(payload).digest()
        kept = {name: value for name, value in message.headers.items() if name in (RUNS_HEADER, TYPES_HEADER)}
        yield StoredCommit(message.sequence, payload, previous.hex(), kept)
