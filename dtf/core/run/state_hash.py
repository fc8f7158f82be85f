"""One number for the whole state: equal on every replay at every sequence, within one schema version.

Each entity (a run, a worker) has a digest of its canonical encoding, and the digests are added
modulo 2²⁵⁶, so that only what changed since the last call is encoded again. `evolve` notes what it
touched; the cost is paid here. Strings of a run only ever grow, so they are fed to a running hash
once. The caches are no part of the state: no comparison sees them, and a state without them hashes
to the same number.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from dtf.core.fleet.worker import Worker
from dtf.core.run.state import HashCache, Run, State

SCHEMA_VERSION = 1
_MODULUS = 2**256


def state_hash(state: State) -> str:
    """64 hexadecimal digits."""
    cache = state.hash_cache
    for run_id in cache.changed_runs:
        run = state.runs.get(run_id)
        if run is not None:
            _replace(cache, "run " + run_id, _run_digest(cache, run))
    for worker_id in cache.changed_workers:
        worker = state.workers.get(worker_id)
        if worker is not None:
            _replace(cache, "worker " + worker_id, _worker_digest(worker))
    cache.changed_runs.clear()
    cache.changed_workers.clear()
    return _digest(_canonical(_scalars(state)), cache.total.to_bytes(32, "big")).hex()


def forget_caches(state: State) -> None:
    """Make the next hash start from nothing, as after a state was copied or loaded."""
    state.hash_cache = HashCache(changed_runs=set(state.runs), changed_workers=set(state.workers))


def _replace(cache: HashCache, entity: str, digest: bytes) -> None:
    new = int.from_bytes(digest, "big")
    cache.total = (cache.total - cache.digests.get(entity, 0) + new) % _MODULUS
    cache.digests[entity] = new


def _digest(*parts: bytes) -> bytes:
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
        state.queued_count,
        state.leased_count,
        sorted(state.active_runs),
        sorted(state.run_requests.items()),
        sorted(state.session_requests.items()),
    ]


def _run_digest(cache: HashCache, run: Run) -> bytes:
    columns = (run.attempts, run.task_templates, run.expected_seconds, run.priorities)
    case_columns = (run.case_offsets, run.case_positions)
    strings = (("names", run.names), ("payloads", run.payloads), ("case_names", run.case_names))
    return _digest(
        run.created.SerializeToString(deterministic=True),
        _canonical(_run_scalars(run)),
        bytes(run.task_states),
        bytes(run.verdicts),
        *(b"-" if column is None else column.tobytes() for column in (*columns, *case_columns)),
        *(_strings_digest(cache, f"{run.run_id} {name}", column) for name, column in strings),
    )


def _strings_digest(cache: HashCache, key: str, column: Sequence[str] | None) -> bytes:
    if column is None:
        return b"-"
    hasher, count = cache.streams.get(key) or (hashlib.blake2b(digest_size=32), 0)
    if count < len(column):
        hasher.update(("\0".join(column[count:]) + "\0").encode())
        cache.streams[key] = (hasher, len(column))
    return hasher.copy().digest()


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
        [(batch.first_task, batch.task_count, batch.sequence) for batch in run.batches],
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


def _worker_digest(worker: Worker) -> bytes:
    return _digest(
        _canonical(
            [
                [worker.worker_id, worker.incarnation, worker.state, worker.pool],
                sorted(worker.labels.items()),
                [worker.cpus, worker.memory_bytes, worker.gpus, worker.slots],
                [worker.host, worker.process_id, worker.version, worker.launch_id, worker.request_id],
                [worker.reason, worker.registered_at_ns, worker.lease_count, worker.completed_count],
                sorted((run_id, sorted(held.items())) for run_id, held in worker.leases.items()),
                sorted(worker.completed.recent),
                sorted(worker.completed.older),
            ]
        )
    )
