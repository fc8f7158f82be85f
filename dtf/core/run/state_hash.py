"""One number for the whole state: equal on every replay at every sequence, within one schema version.

Each entity (a run, a retired run, a worker, a key of a session) has a digest of its canonical
encoding, and the digests are added modulo 2²⁵⁶, so that only what changed since the last call is
encoded again. `evolve` notes what it touched; the cost is paid here.

A run's columns of states, attempts and verdicts are digested in chunks of 4,096 tasks, and only
chunks with a changed task are digested again. Its other columns only ever grow: they are fed to
running hashes once. So a call after one commit costs as much in a run of a million tasks as in one
of a thousand, but for the digests of the chunks, 32 bytes each.

The caches are no part of the state: no comparison sees them, and a state without them hashes to
the same number. What the entities imply (which runs are active, which key created which run) is
not hashed again.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from dtf.core.fleet.join_token import JoinToken
from dtf.core.fleet.worker import CompletedFences, Worker
from dtf.core.run.columns import column_bytes
from dtf.core.run.state import TASKS_A_CHUNK_BITS, FencesHash, HashCache, RetiredRun, Run, RunHash, State

SCHEMA_VERSION = 2
"""2: digests by chunk, retired runs, times of leaving; incarnations are bounded below. 1: dtf 0.1."""
_MODULUS = 2**256
_CHUNK = 1 << TASKS_A_CHUNK_BITS


def state_hash(state: State) -> str:
    """64 hexadecimal digits."""
    cache = state.hash_cache
    if not cache.is_in_use:
        cache = state.hash_cache = _all_of(state)
    _settle_runs(state, cache)
    for worker_id in cache.changed_workers:
        worker = state.workers.get(worker_id)
        _replace(cache, "worker " + worker_id, _worker_digest(cache, worker) if worker else None)
        if worker is None:
            cache.fences.pop(worker_id, None)
    for request_id in cache.changed_sessions:
        session = state.session_requests.get(request_id)
        digest = _digest(_canonical([request_id, *session])) if session else None
        _replace(cache, "session " + request_id, digest)
    _settle_tokens(state, cache)
    cache.changed_workers.clear()
    cache.changed_sessions.clear()
    return _digest(_canonical(_scalars(state)), cache.total.to_bytes(32, "big")).hex()


def forget_caches(state: State) -> None:
    """Make the next hash start from nothing, as after a state was copied or loaded."""
    state.hash_cache = HashCache()


def _all_of(state: State) -> HashCache:
    return HashCache(
        is_in_use=True,
        changed_runs=set(state.runs),
        changed_retired=set(state.retired_runs),
        changed_workers=set(state.workers),
        changed_sessions=set(state.session_requests),
        changed_tokens=set(state.tokens),
    )


def _settle_tokens(state: State, cache: HashCache) -> None:
    for token_id in cache.changed_tokens:
        token = state.tokens.get(token_id)
        _replace(cache, "token " + token_id, _token_digest(token) if token else None)
    if cache.changed_tokens:
        _replace(cache, "cluster", _digest(state.cluster_id.encode()))
    cache.changed_tokens.clear()


def _token_digest(token: JoinToken) -> bytes:
    scalars = [
        [token.token_id, token.pool, token.expires_at_ns, token.is_single_use, token.launch_id],
        [token.issued_by, token.issued_at_ns, token.revoked_at_ns, token.revoked_by],
        [token.use_count, token.last_worker_id],
    ]
    return _digest(_canonical(scalars), token.secret_hash)


def _settle_runs(state: State, cache: HashCache) -> None:
    for run_id in cache.changed_runs:
        run = state.runs.get(run_id)
        if run is None:
            _replace(cache, "run " + run_id, None)
            cache.runs.pop(run_id, None)
        else:
            _replace(cache, "run " + run_id, _run_digest(cache.runs.setdefault(run_id, RunHash()), run))
    for run_id in cache.changed_retired:
        retired = state.retired_runs.get(run_id)
        _replace(cache, "retired " + run_id, _retired_digest(retired) if retired else None)
    cache.changed_runs.clear()
    cache.changed_retired.clear()


def _replace(cache: HashCache, entity: str, digest: bytes | None) -> None:
    """The entity's digest is now this one; None: it is gone."""
    old = cache.digests.pop(entity, 0)
    new = 0
    if digest is not None:
        new = cache.digests[entity] = int.from_bytes(digest, "big")
    cache.total = (cache.total - old + new) % _MODULUS


def _digest(*parts: bytes | bytearray) -> bytes:
    hasher = hashlib.blake2b(digest_size=32)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _scalars(state: State) -> list[Any]:
    return [
        SCHEMA_VERSION,
        state.epoch,
        state.leader,
        state.lease_seconds,
        state.now_ns,
        state.last_sequence,
        state.next_fence,
        state.incarnation_floor,
        state.queued_count,
        state.leased_count,
        *_pools(state),
    ]


def _pools(state: State) -> list[Any]:
    """The wishes, if there are any: a state without hashes as before there were such."""
    return [[asdict(wish) for _, wish in sorted(state.pools.items())]] if state.pools else []


def _run_digest(known: RunHash, run: Run) -> bytes:
    if not known.created:
        known.created = run.created.SerializeToString(deterministic=True)
    return _digest(
        known.created,
        _canonical(_run_scalars(run)),
        b"".join(_chunks(known, run)),
        *_growing(known, run),
    )


def _chunks(known: RunHash, run: Run) -> list[bytes]:
    """A digest of each chunk of tasks, with their cases."""
    changed = known.changed_chunks
    if run.task_count != known.task_count:
        changed.update(range(known.task_count >> TASKS_A_CHUNK_BITS, -(-run.task_count // _CHUNK)))
        known.chunks.extend([b""] * (-(-run.task_count // _CHUNK) - len(known.chunks)))
        known.task_count = run.task_count
    for chunk in changed:
        start = chunk << TASKS_A_CHUNK_BITS
        stop = min(start + _CHUNK, run.task_count)
        cases = _cases_between(run, start, stop)
        known.chunks[chunk] = _digest(
            run.task_states[start:stop], column_bytes(run.attempts[start:stop]), run.verdicts[cases]
        )
    changed.clear()
    return known.chunks


def _cases_between(run: Run, start: int, stop: int) -> slice:
    if run.case_offsets is None:
        return slice(start, stop)
    return slice(run.case_offsets[start], run.case_offsets[stop])


def _growing(known: RunHash, run: Run) -> Iterable[bytes]:
    arrays = (run.task_templates, run.expected_seconds, run.priorities, run.case_offsets, run.case_positions)
    for name, column in zip("tepoc", arrays, strict=True):
        yield b"-" if column is None else _fed(known, name, column)
    for name, texts in (("names", run.names), ("payloads", run.payloads), ("cases", run.case_names)):
        yield b"-" if texts is None else _fed_texts(known, name, texts)
    yield _fed_batches(known, run)


def _fed(known: RunHash, name: str, column: "array[int] | array[float]") -> bytes:
    hasher, count = known.streams.get(name) or (hashlib.blake2b(digest_size=32), 0)
    if count < len(column):
        hasher.update(column_bytes(column[count:]))
        known.streams[name] = (hasher, len(column))
    digest: bytes = hasher.digest()
    return digest


def _fed_texts(known: RunHash, name: str, texts: list[str]) -> bytes:
    """Lengths and characters are fed apart, so that the parts in which they came make no difference."""
    hashers, count = known.streams.get(name) or (
        (hashlib.blake2b(digest_size=32), hashlib.blake2b(digest_size=32)),
        0,
    )
    lengths, characters = hashers
    if count < len(texts):
        fresh = texts[count:]
        lengths.update(column_bytes(array("I", map(len, fresh))))
        characters.update("".join(fresh).encode())
        known.streams[name] = (hashers, len(texts))
    digest: bytes = lengths.digest() + characters.digest()
    return digest


def _fed_batches(known: RunHash, run: Run) -> bytes:
    """The last batch may still grow; those before it do not."""
    hasher, count = known.streams.get("batches") or (hashlib.blake2b(digest_size=32), 0)
    whole = max(len(run.batches) - 1, 0)
    if count < whole:
        hasher.update(_batch_bytes(run, count, whole))
        known.streams["batches"] = (hasher, whole)
    digest: bytes = hasher.digest()
    return digest + _batch_bytes(run, whole, len(run.batches))


def _batch_bytes(run: Run, start: int, stop: int) -> bytes:
    numbers = array("Q")
    for batch in run.batches[start:stop]:
        numbers.extend((batch.first_task, batch.task_count, batch.sequence))
    return column_bytes(numbers)


def _run_scalars(run: Run) -> list[Any]:
    return [
        run.state,
        run.created_at_ns,
        run.finished_at_ns,
        run.first_sequence,
        run.last_sequence,
        run.is_sealed,
        run.cancel_requested_by,
        run.cancel_reason,
        [run.task_count, run.case_count, len(run.batches)],
        sorted((task, sorted(cases)) for task, cases in run.retry_pending.items()),
        sorted(run.test_failures.items()),
        sorted(run.infrastructure_charges.items()),
        sorted(run.task_charges.items()),
        [
            (priority, [(template, list(queue.ranges())) for template, queue in sorted(queues.items())])
            for priority, queues in sorted(run.queues.items())
        ],
        [run.queued_count, run.leased_count, run.finished_count, run.infrastructure_failures],
        run.counts,
        [
            (t.is_waiting, t.waiting_reason, t.waiting_since_ns, t.observed_seconds, t.observed_count)
            for t in run.templates
        ],
    ]


def _retired_digest(retired: RetiredRun) -> bytes:
    return _digest(retired.outline, retired.request_id.encode(), retired.content_digest)


def _worker_digest(cache: HashCache, worker: Worker) -> bytes:
    scalars = [
        [worker.worker_id, worker.incarnation, worker.state, worker.pool],
        sorted(worker.labels.items()),
        [worker.cpus, worker.memory_bytes, worker.gpus, worker.slots],
        [worker.host, worker.process_id, worker.version, worker.launch_id, worker.request_id],
        [worker.reason, worker.registered_at_ns, worker.gone_at_ns],
        [worker.lease_count, worker.completed_count],
        [(run_id, len(held)) for run_id, held in worker.leases.items()],
        *([[worker.join_token_id]] if worker.join_token_id else []),
        *([["quarantine", worker.quarantine]] if worker.quarantine else []),
    ]
    leases = (
        column_bytes(array("Q", numbers))
        for held in worker.leases.values()
        for numbers in (held.keys(), held.values())
    )
    return _digest(_canonical(scalars), *leases, *_fed_fences(cache, worker.worker_id, worker))


def _fed_fences(cache: HashCache, worker_id: str, worker: Worker) -> tuple[bytes, bytes]:
    """Digests of the fences completed of late, and of those before them."""
    completed: CompletedFences = worker.completed
    version = (worker.incarnation, completed.generation)
    known = cache.fences.get(worker_id)
    if known is None or known.version != version:
        known = FencesHash(version, hashlib.blake2b(digest_size=32), _digest(column_bytes(completed.older)))
        cache.fences[worker_id] = known
    known.recent.update(column_bytes(completed.recent[known.count :]))
    known.count = len(completed.recent)
    digest: bytes = known.recent.digest()
    return digest, known.older
