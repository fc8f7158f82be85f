"""A real influxd for tests: the one that `make influxd` built, on a free port, in a directory of its own."""

import json
import os
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dtf.adapters.rejected_points import RejectedPoints
from dtf.adapters.system_clock import SystemClock
from tests.ports import free_ports

if TYPE_CHECKING:
    from dtf.adapters.influx_store import InfluxStore

_VERSION = re.compile(r"github\.com/influxdata/influxdb/v2 v(\S+)")
_LISTENING = re.compile(r"Listening.*\bport=\d+")
_buckets = count(1)


def influxd_path() -> Path | None:
    """The binary, or None when it has not been built."""
    override = os.environ.get("DTF_INFLUXD")
    if override:
        return Path(override)
    go_mod = Path(__file__).parent.parent / "tools" / "influxd" / "go.mod"
    version = _VERSION.search(go_mod.read_text(encoding="utf-8"))
    assert version is not None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "dtf" / "influxd" / version.group(1) / "influxd"
    return path if path.exists() else None


class Influxd:
    """One influxd process with an organization, a token and a bucket a store."""

    org = "tests"
    token = "token-of-the-tests"

    def __init__(self, binary: Path, directory: Path) -> None:
        self._binary = binary
        self._directory = directory
        self._port = free_ports(1)[0]
        self._org_id = ""
        self._process: subprocess.Popen[str] | None = None
        self._drainer = threading.Thread()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it on its port and return when it serves."""
        self._directory.mkdir(parents=True, exist_ok=True)
        arguments = [
            f"--bolt-path={self._directory / 'bolt'}",
            f"--sqlite-path={self._directory / 'sqlite'}",
            f"--engine-path={self._directory / 'engine'}",
            f"--http-bind-address=127.0.0.1:{self._port}",
            "--reporting-disabled",
        ]
        self._process = subprocess.Popen(
            [str(self._binary), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._await_listening()
        self._drainer = threading.Thread(target=self._drain, args=(self._process,), daemon=True)
        self._drainer.start()
        if not self._org_id:
            self._set_up()

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it where it stands: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def environment(self, bucket: str) -> dict[str, str]:
        """What tells dtf of a bucket here."""
        return {
            "INFLUXDB_V2_URL": self.url,
            "INFLUXDB_V2_TOKEN": self.token,
            "INFLUXDB_V2_ORG": self.org,
            "INFLUXDB_V2_BUCKET": bucket,
        }

    async def open_store(self, bucket: str = "", rejected: RejectedPoints | None = None) -> "InfluxStore":
        """A store in a bucket of its own, or in the one named."""
        # Slow to import, and every test would.
        from dtf.adapters.influx_connection import InfluxAddress
        from dtf.adapters.influx_store import InfluxStore

        address = InfluxAddress.from_environment(self.environment(bucket or f"bucket-{next(_buckets)}"))
        return await InfluxStore.open(address, clock=SystemClock(), rejected=rejected)

    def make_bucket(self, name: str, *, keep_seconds: int) -> str:
        """A bucket that forgets; its name."""
        rules = [{"type": "expire", "everySeconds": keep_seconds}]
        body = {"orgID": self._org_id, "name": name, "retentionRules": rules}
        self._post("/api/v2/buckets", body)
        return name

    def delete_bucket(self, name: str) -> None:
        """Delete the bucket with everything in it."""
        (found,) = self._ask("GET", f"/api/v2/buckets?name={name}")["buckets"]
        self._ask("DELETE", f"/api/v2/buckets/{found['id']}")

    def _await_listening(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if _LISTENING.search(line):
                return
        raise AssertionError("influxd ended before it listened")

    def _drain(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for _line in lines:
                pass

    def _set_up(self) -> None:
        body = {
            "username": "tests",
            "password": "password-of-the-tests",
            "org": self.org,
            "bucket": "first",
            "token": self.token,
        }
        self._org_id = self._post("/api/v2/setup", body)["org"]["id"]

    def _post(self, path: str, body: object) -> Any:
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Token {self.token}"}
        request = urllib.request.Request(f"{self.url}{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=90) as response:
            return json.loads(response.read() or b"null")

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=90)
            self._drainer.join(timeout=90)
            self._process = None


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """One influxd for the session; skipped, with the reason, where it has not been built."""
    server = Influxd(require_influxd(), tmp_path_factory.mktemp("influxd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_influxd(tmp_path: Path) -> Iterator[Influxd]:
    """An influxd of the test's own, to be stopped and started at will."""
    server = Influxd(require_influxd(), tmp_path / "influxd")
    server.start()
    yield server
    server.stop()


def require_influxd() -> Path:
    """The binary; skips the test when there is none."""
    path = influxd_path()
    if path is None:
        pytest.skip("no influxd in the cache: `make influxd` builds it once (4 minutes)")
    return path
