"""`dtf trends import`: what it sends, and the pools it keeps apart."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import resource_service_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli


class Stack:
    """An analyzer that takes everything, beside a coordinator that knows a pool."""

    def __init__(self) -> None:
        self.client = self.pools = self.stub = self
        self.metadata = ()
        self.call: dict[str, Any] = {}
        self.taken: list[pb.ImportPointsRequest] = []

    async def ListPools(
        self, _request: resource_service_pb2.ListPoolsRequest, **_: Any
    ) -> resource_service_pb2.ListPoolsResponse:
        """One, which no setting of the project names."""
        return resource_service_pb2.ListPoolsResponse(pools=[resource_service_pb2.Pool(name="lab")])

    async def ImportPoints(self, request: pb.ImportPointsRequest) -> pb.ImportPointsResponse:
        """Take it."""
        self.taken.append(request)
        return pb.ImportPointsResponse(taken_count=sum(len(each.values) for each in request.series))

    def ask(self, _invocation: object, ask: Callable[["Stack"], Awaitable[Any]]) -> Any:
        """In the place of `ask_analyzer`."""

        async def answered() -> Any:
            return await ask(self)

        return asyncio.run(answered())


@pytest.mark.parametrize(
    ("options", "code", "pool"),
    [
        ([], ExitCode.OK, ""),
        (["--pool", "old-laptop"], ExitCode.OK, "old-laptop"),
        (["--pool", "local"], ExitCode.USAGE, None),
        (["--pool", "lab"], ExitCode.USAGE, None),
        (["--pool", "lab", "--force"], ExitCode.OK, "lab"),
    ],
)
def test_history_is_not_mixed_with_what_a_pool_of_this_stack_measures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: ExitCode,
    pool: str | None,
) -> None:
    stack = Stack()
    monkeypatch.setattr("dtf.cli.trends_import_command.ask_analyzer", stack.ask)
    (tmp_path / "h.csv").write_text("time,parse\n2026-05-01,1\n2026-05-02,2\n")
    arguments = ["--project", str(tmp_path), "trends", "import", str(tmp_path / "h.csv"), *options]
    assert run_cli(arguments) == code
    said = capsys.readouterr()
    if pool is None:
        assert stack.taken == []
        assert f"error: {options[1]} is a pool of this stack" in said.err
        assert "--force imports all the same" in said.err
    else:
        assert [each.series.pool for request in stack.taken for each in request.series] == [pool]
        assert "2 points of 1 series imported into suite h" in said.out


def test_an_interrupted_import_says_what_was_taken_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = Stack()

    def interrupted(_invocation: object, ask: Callable[[Stack], Awaitable[Any]]) -> Any:
        stack.ask(_invocation, ask)
        raise KeyboardInterrupt

    monkeypatch.setattr("dtf.cli.trends_import_command.ask_analyzer", interrupted)
    path = tmp_path / "h.csv"
    path.write_text("date,latency\n2026-05-01,1\n2026-05-02,2\n", encoding="utf-8")
    assert run_cli(["--project", str(tmp_path), "trends", "import", str(path)]) == ExitCode.CANCELLED
    said = capsys.readouterr().err
    assert said.startswith(
        "error: interrupted; 2 of 2 points were acknowledged\n  what was taken stays; the same command again"
    )


def test_names_that_are_no_text_are_imported_under_what_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a shell gives in bytes that are no UTF-8, and escapes of JSON that are half a character."""
    stack = Stack()
    monkeypatch.setattr("dtf.cli.trends_import_command.ask_analyzer", stack.ask)
    path = tmp_path / os.fsdecode(b"\xff.json")
    path.write_text('{"results": [{"command": "\\ud800 x", "mean": 1.0, "median": 1.0}]}', encoding="utf-8")
    arguments = ["--project", str(tmp_path), "trends", "import", str(path), "--file-times"]
    assert run_cli([*arguments, "--suite", "a\udcff\r\nBcc: b", "--pool", "\udcffattic"]) == ExitCode.OK
    assert {(each.series.suite, each.series.pool) for request in stack.taken for each in request.series} == {
        ("a Bcc: b", "attic")
    }
    assert stack.taken[0].series[0].series.case_name == "? x"
    assert "imported into suite a Bcc: b;" in capsys.readouterr().out
