"""`dtf events tail|export|import` against a real broker."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_connection import NatsConnection
from dtf.adapters.system_clock import SystemClock
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from dtf.ports.subjects import event_subject
from dtf.settings.model import NatsSettings
from tests.commits import CommitWriter, run_created, run_finished, worker_left

RunDtf = Callable[..., int]


@pytest.fixture
def arguments(nats_settings: NatsSettings, namespace: str, tmp_path: Path) -> list[str]:
    """The global options that name the broker and the namespace."""
    return [
        *("--project", str(tmp_path)),
        *("--set", f"nats.url={nats_settings.url}"),
        *("--set", f"nats.credentials_file={nats_settings.credentials_file}"),
        *("--set", f"nats.max_log_bytes={nats_settings.max_log_bytes}"),
        *("--set", f"coordinator.namespace={namespace}"),
    ]


@pytest.fixture
def dtf(arguments: list[str]) -> RunDtf:
    return lambda *words: run_cli([*arguments, *words])


@pytest.fixture
def recorded(nats_settings: NatsSettings, namespace: str) -> None:
    """A log of four commits and one message of a stranger."""

    async def record(log: JetStreamLog) -> None:
        writer = CommitWriter(log)
        await writer.commit(run_created("7f3k"))
        await writer.commit(run_created("8abc"), worker_left("w-1"))
        await writer.commit(run_finished("7f3k"))
        stranger = NatsConnection(nats_settings, name="stranger")
        await stranger.ask(event_subject(namespace), b"no commit", None)
        await stranger.close()
        await writer.commit(worker_left("w-2"))

    asyncio.run(with_log(nats_settings, namespace, record))


async def with_log(
    settings: NatsSettings, namespace: str, use: Callable[[JetStreamLog], Awaitable[None]]
) -> None:
    log = await JetStreamLog.open(settings, namespace, SystemClock())
    await use(log)
    await log.close()


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            [],
            [(1, "RunCreated"), (2, "RunCreated"), (2, "WorkerLeft"), (3, "RunFinished"), (5, "WorkerLeft")],
            id="everything",
        ),
        pytest.param(["--run", "7f3k"], [(1, "RunCreated"), (3, "RunFinished")], id="one run"),
        pytest.param(["--type", "WorkerLeft"], [(2, "WorkerLeft"), (5, "WorkerLeft")], id="one type"),
        pytest.param(["--type", "run_finished"], [(3, "RunFinished")], id="a type by the name of its field"),
        pytest.param(["--from-seq", "3"], [(3, "RunFinished"), (5, "WorkerLeft")], id="from a sequence"),
        pytest.param(["--run", "8abc", "--from-seq", "3"], [], id="nothing"),
    ],
)
def test_tail_prints_what_is_asked_for(
    dtf: RunDtf, capsys: pytest.CaptureFixture[str], options: list[str], expected: list[tuple[int, str]]
) -> None:
    assert dtf("events", "tail", "--no-follow", "--json", *options) == ExitCode.OK
    found = objects(capsys.readouterr().out)
    assert [(line["sequence"], line["type"]) for line in found] == expected


@pytest.mark.usefixtures("recorded")
def test_a_line_has_the_event_its_time_and_its_run(dtf: RunDtf, capsys: pytest.CaptureFixture[str]) -> None:
    dtf("events", "tail", "--no-follow", "--json", "--run", "7f3k", "--type", "RunCreated")
    output = capsys.readouterr()
    assert objects(output.out) == [
        {
            "sequence": 1,
            "at": "2001-09-09T01:46:41.000000Z",
            "now_unix_nanos": 1_000_000_001_000_000_000,
            "run": "7f3k",
            "type": "RunCreated",
            "event": {"run_created": {"run_id": "7f3k", "suite": "suite"}},
        }
    ]


@pytest.mark.usefixtures("recorded")
def test_messages_that_are_no_commits_are_counted(dtf: RunDtf, capsys: pytest.CaptureFixture[str]) -> None:
    dtf("events", "tail", "--no-follow")
    output = capsys.readouterr()
    assert "messages passed over, for they are no commits of dtf: 1" in output.err
    assert [line.split()[:4] for line in output.out.splitlines()] == [
        ["1", "01:46:41.000", "7f3k", "RunCreated"],
        ["2", "01:46:42.000", "8abc", "RunCreated"],
        ["2", "01:46:42.000", "fleet", "WorkerLeft"],
        ["3", "01:46:43.000", "7f3k", "RunFinished"],
        ["5", "01:46:44.000", "fleet", "WorkerLeft"],
    ]


@pytest.mark.usefixtures("recorded")
def test_tail_follows_what_comes(arguments: list[str], nats_settings: NatsSettings, namespace: str) -> None:
    command = [
        sys.executable,
        "-m",
        "dtf.cli.main",
        *arguments,
        "events",
        "tail",
        "--json",
        "--from-seq",
        "5",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["sequence"] == 5
        asyncio.run(with_log(nats_settings, namespace, append_one))
        assert json.loads(process.stdout.readline())["run"] == "9new"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=90) == ExitCode.CANCELLED


async def append_one(log: JetStreamLog) -> None:
    await CommitWriter(log).commit(run_created("9new"))


@pytest.mark.usefixtures("recorded")
def test_an_export_fills_another_namespace_with_the_same_log(
    dtf: RunDtf, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "log.dtfstream")
    assert dtf("events", "export", file) == ExitCode.OK
    assert "4 commits in" in capsys.readouterr().out
    assert dtf("events", "import", file, "--namespace", f"{namespace}-2") == ExitCode.OK
    assert f"5 messages are in the log of namespace {namespace}-2" in capsys.readouterr().out
    logs = []
    for name in (namespace, f"{namespace}-2"):
        dtf("events", "tail", "--no-follow", "--json", "--namespace", name)
        logs.append(capsys.readouterr().out)
    assert logs[0] == logs[1] != ""
    assert dtf("events", "import", file, "--namespace", namespace) == ExitCode.FAILED
    assert "the log has 5 commits already" in capsys.readouterr().err


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tail", "--type", "RunStarted"], ExitCode.USAGE, "error: no event type RunStarted; there are"),
        (["tail", "--namespace", "nobody"], ExitCode.FAILED, "error: there is no stream DTF_EVENTS_nobody"),
        (["tail", "--namespace", "a.b"], ExitCode.FAILED, "error: namespace 'a.b' cannot be used"),
        (["export", "/nowhere/x"], ExitCode.FAILED, "error: /nowhere/x"),
        (["import", __file__, "--namespace", "fresh"], ExitCode.FAILED, "is no stream file"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(
    dtf: RunDtf, capsys: pytest.CaptureFixture[str], words: list[str], code: ExitCode, said: str
) -> None:
    assert dtf("events", *words) == code
    assert said in capsys.readouterr().err


def test_where_nothing_runs_it_says_what_to_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["--project", str(tmp_path), "events", "tail"]) == ExitCode.UNAVAILABLE
    assert "`dtf up` starts the stack" in capsys.readouterr().err
