"""`dtf doctor`: each thing that is wrong is found, and named with the line that mends it."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import nats
import pytest

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_configuration import read_credentials
from dtf.adapters.nats_server import NatsServer
from dtf.cli import doctor_checks as checks
from dtf.cli import doctor_services as services
from dtf.cli.doctor_checks import Finding, Level
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from dtf.client.stack import StackAddresses
from dtf.ports.event_log import LogMismatch
from dtf.ports.subjects import event_stream, event_subject
from dtf.settings.model import CoordinatorSettings, NatsSettings, Settings, StoreSettings


def levels(findings: list[Finding]) -> set[Level]:
    return {finding.level for finding in findings}


def test_a_sound_machine_has_nothing_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dtf.toml").touch()
    assert run_cli(["--project", str(tmp_path), "doctor", "--json"]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert document["to_mend"] == 0
    looked_at = {finding["check"] for finding in document["findings"]}
    assert {"python", "nats-server", "disk", "write + fsync", "clock", "broker", "metric store"} <= looked_at
    assert set(tmp_path.iterdir()) == {tmp_path / "dtf.toml"}


def test_what_is_wrong_is_counted_in_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dtf.toml").write_text('[store]\npath = "broken.duckdb"')
    (tmp_path / "broken.duckdb").write_text("this is no database")
    arguments = ["--project", str(tmp_path), "--set", f"store.path={tmp_path / 'broken.duckdb'}", "doctor"]
    assert run_cli(arguments) == ExitCode.UNHEALTHY
    output = capsys.readouterr().out
    assert "mend  metric store" in output
    assert "1 to mend" in output


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        settings = Settings(coordinator=CoordinatorSettings(listen=address))
        found = [f for f in checks.check_ports(settings, is_running=False) if f.level is Level.MEND]
    (finding,) = found
    assert address in finding.seen
    assert "coordinator.listen" in finding.mend


def test_a_clock_that_fell_behind_is_seen(tmp_path: Path) -> None:
    (tmp_path / "stack.json").touch()
    os.utime(tmp_path / "stack.json", (5000, 5000))
    assert levels(list(checks.check_clock(tmp_path, 6000.0))) == {Level.OK}
    (finding,) = checks.check_clock(tmp_path, 4000.0)
    assert finding.level is Level.MEND
    assert "1,000 s behind" in finding.seen


def test_secrets_open_to_others_are_seen(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    token = tmp_path / "secrets" / "token"
    token.touch(mode=0o600)
    assert levels(list(checks.check_privacy(tmp_path))) == {Level.OK}
    token.chmod(0o644)
    (finding,) = checks.check_privacy(tmp_path)
    assert finding.mend == f"chmod go= {token}"


async def test_a_broker_that_outlived_its_stack_is_found(tmp_path: Path, own_nats_server: NatsServer) -> None:
    (finding,) = checks.check_leftovers(tmp_path, is_running=False)
    assert finding.mend == f"kill {own_nats_server.server_pid}"
    await own_nats_server.stop()
    assert levels(list(checks.check_leftovers(tmp_path, is_running=False))) == {Level.OK}


def test_writes_are_timed_and_leave_nothing(tmp_path: Path) -> None:
    assert all(seconds > 0 for seconds in checks.fsync_seconds(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_nats_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTF_NATS_SERVER", "/nowhere/nats-server")
    (finding,) = checks.check_nats_server(Settings())
    assert finding.level is Level.MEND
    assert "/nowhere/nats-server" in finding.seen


def test_a_broker_that_is_not_there_is_named() -> None:
    settings = Settings(nats=NatsSettings(url="nats://127.0.0.1:1"))
    (finding,) = services.check_broker(settings, None)
    assert finding.level is Level.MEND
    assert "nats://127.0.0.1:1" in finding.seen


class TestBroker:
    """Questions to a real broker, asked from a thread, as check_broker runs a loop of its own."""

    async def ask(self, settings: NatsSettings, namespace: str) -> list[Finding]:
        return await services.ask_broker(settings, namespace)

    async def test_a_log_that_is_not_there_yet_is_no_fault(
        self, nats_settings: NatsSettings, namespace: str
    ) -> None:
        found = await self.ask(nats_settings, namespace)
        assert levels(found) == {Level.OK}
        assert "will be made" in found[1].seen

    async def test_a_log_as_we_make_it_is_sound(
        self, nats_settings: NatsSettings, namespace: str, event_log: JetStreamLog
    ) -> None:
        found = await self.ask(nats_settings, namespace)
        assert levels(found) == {Level.OK}
        assert "0 commits" in found[1].seen

    async def test_a_log_that_would_lose_commits_is_named(
        self, nats_settings: NatsSettings, namespace: str
    ) -> None:
        user, password = read_credentials(Path(nats_settings.credentials_file))
        client = await nats.connect(nats_settings.url, user=user, password=password)
        await client.jetstream().add_stream(
            name=event_stream(namespace), subjects=[event_subject(namespace)], storage="memory", max_age=60
        )
        await client.close()
        finding = (await self.ask(nats_settings, namespace))[1]
        assert finding.level is Level.MEND
        for fault in ("storage is memory", "discard is old", "max_age is 60", "deny_delete is off"):
            assert fault in finding.seen

    async def test_wrong_credentials_are_told(self, nats_settings: NatsSettings, tmp_path: Path) -> None:
        wrong = tmp_path / "wrong"
        wrong.write_text("dtf:wrong")
        with pytest.raises(LogMismatch, match="refuses these credentials"):
            await self.ask(replace(nats_settings, credentials_file=str(wrong)), "default")


async def test_a_metric_store_is_judged_by_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.duckdb"
    settings = Settings(store=StoreSettings(path=str(path)))
    (finding,) = services.check_store(settings, tmp_path, None)
    assert "will be made" in finding.seen
    store = await DuckDbStore.open(path)
    await store.close()
    (finding,) = services.check_store(settings, tmp_path, None)
    assert finding.level is Level.OK
    (finding,) = services.check_store(settings, tmp_path, StackAddresses())
    assert "open in the stack's trend analyzer" in finding.seen


def test_influxdb_needs_its_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(store=StoreSettings(kind="influxdb"))
    for name in ("INFLUXDB_V2_URL", "INFLUXDB_V2_TOKEN", "INFLUXDB_V2_ORG"):
        monkeypatch.delenv(name, raising=False)
    (finding,) = services.check_store(settings, tmp_path, None)
    assert finding.seen == "INFLUXDB_V2_URL, INFLUXDB_V2_TOKEN, INFLUXDB_V2_ORG not set"
    for name in ("INFLUXDB_V2_URL", "INFLUXDB_V2_TOKEN", "INFLUXDB_V2_ORG"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (finding,) = services.check_store(settings, tmp_path, None)
    assert finding.mend == "start InfluxDB, or correct INFLUXDB_V2_URL"
