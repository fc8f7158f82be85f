"""Celery with the settings that measured best for no-ops, and the Redis it needs.

Imported by the peers' interpreter and by Celery's worker; dtf is not there.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import celery
from celery.result import ResultSet

SETTINGS_SAID = (
    "prefork, prefetch multiplier 128, early acknowledgement, one producer connection, no events, "
    "gossip, mingle or heartbeats; Redis without saving"
)
_READY_SECONDS = 60.0


def make_app(url: str) -> Any:
    """The application of both sides; `url` is the Redis that is broker and result backend."""
    app = celery.Celery("celery_app", broker=url, backend=url, set_as_current=True)
    app.conf.update(
        worker_prefetch_multiplier=128,
        task_acks_late=False,
        task_track_started=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_disable_rate_limits=True,
        result_expires=None,
        broker_connection_retry_on_startup=True,
    )
    return app


app = make_app(os.environ.get("DTF_BENCH_REDIS", "memory://"))


@celery.shared_task(name="nothing")  # type: ignore[untyped-decorator]  # celery has no types
def _nothing() -> None:
    """Return at once."""


@celery.shared_task(name="hold")  # type: ignore[untyped-decorator]  # as above
def _hold(path: str) -> None:
    """Return when `path` is gone."""
    while Path(path).exists():
        time.sleep(0.05)


NOTHING: Any = _nothing
HOLD: Any = _hold


def join(app: Any, results: list[Any]) -> None:
    """Return when every result is there."""
    ResultSet(results, app=app).join_native(timeout=600)


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis in memory on a free port; its address as Celery has it."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("there is no redis-server; install Debian's package redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory]
        command += ["--save", "", "--appendonly", "no"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                _wait_for(port)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                process.terminate()


def _wait_for(port: int) -> None:
    end = time.monotonic() + _READY_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextmanager
def worker(url: str, processes: int) -> Iterator[None]:
    """Celery's worker with its prefork pool."""
    flags = ["-P", "prefork", "-c", str(processes), "-O", "default", "-l", "CRITICAL"]
    flags += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = [sys.executable, "-m", "celery", "-q", "-A", "celery_app", "worker", *flags]
    environment = {**os.environ, "DTF_BENCH_REDIS": url, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, env=environment, cwd=Path(__file__).parent, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()
