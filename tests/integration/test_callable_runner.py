"""The callable executor in a real warm process."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtf.runner.channel import Drop, Dropped, Finish, Prepared, PrepareFailed, Results, Run
from tests.integration.warm_process import PATIENCE_SECONDS, WarmProcess, case, prepare_callable, warm_process

pytestmark = pytest.mark.worker

SUITE = """
import asyncio, os, sys, time
def add(a, b=0): return a + b
def fail(): print("before"); raise ValueError("first line\\nsecond line")
async def later(value): await asyncio.sleep(0); return value
def leave(): sys.exit(3)
def die(): os._exit(7)
def describe(): return {"cwd": os.getcwd(), "value": os.environ.get("COLOUR"), "stdin": sys.stdin.read()}
def unsayable(): return object()
def large(): return "x" * 20000
def wait_for(path):
    open(path + ".began", "w").close()
    while not os.path.exists(path): time.sleep(0.005)
"""


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[WarmProcess]:
    (tmp_path / "suite.py").write_text(SUITE)
    with warm_process() as process:
        yield process


def prepare(warm: WarmProcess, tmp_path: Path, function: str) -> None:
    spec = {"working_dir": str(tmp_path), "import_path": [str(tmp_path)], "environment": {"COLOUR": "red"}}
    warm.send(prepare_callable(f"suite:{function}", **spec))
    warm.receive(Prepared)


def test_arguments_come_as_an_array_an_object_or_not_at_all(warm: WarmProcess, tmp_path: Path) -> None:
    prepare(warm, tmp_path, "add")
    warm.send(Run([case(1, "[1, 2]"), case(2, '{"a": 3, "b": 4}'), case(3, "[5]")]))
    results = warm.results(3)
    assert [(r.fence, r.verdict, r.detail.value_json if r.detail else "") for r in results] == [
        (1, 1, "3"),
        (2, 1, "7"),
        (3, 1, "5"),
    ]
    assert all(r.duration_seconds > 0 and r.peak_memory_bytes > 1_000_000 for r in results)
    assert all(r.is_last_of_attempt for r in results)


@pytest.mark.parametrize("payload", ["{", '"text"', "7"])
def test_a_payload_that_is_no_arguments_is_an_error(warm: WarmProcess, tmp_path: Path, payload: str) -> None:
    prepare(warm, tmp_path, "add")
    warm.send(Run([case(1, payload)]))
    (result,) = warm.results(1)
    assert result.verdict == 3
    assert result.detail is not None
    assert payload in result.detail.message


def test_an_exception_fails_the_case_with_one_line_and_a_traceback(warm: WarmProcess, tmp_path: Path) -> None:
    prepare(warm, tmp_path, "fail")
    warm.send(Run([case(1)]))
    (result,) = warm.results(1)
    assert result.verdict == 2
    assert result.detail is not None
    assert result.detail.message == "ValueError: first line"
    assert result.detail.output.startswith("before\nTraceback")
    assert "second line" in result.detail.output
    assert "callable_session" not in result.detail.output


def test_a_coroutine_function_is_run_to_its_end(warm: WarmProcess, tmp_path: Path) -> None:
    prepare(warm, tmp_path, "later")
    warm.send(Run([case(1, '["done"]')]))
    (result,) = warm.results(1)
    assert result.detail is not None
    assert json.loads(result.detail.value_json) == "done"


def test_sys_exit_fails_the_case_and_the_process_goes_on(warm: WarmProcess, tmp_path: Path) -> None:
    prepare(warm, tmp_path, "leave")
    warm.send(Run([case(1), case(2)]))
    assert [r.verdict for r in warm.results(2)] == [2, 2]


def test_the_case_sees_its_directory_and_environment_and_an_empty_stdin(
    warm: WarmProcess, tmp_path: Path
) -> None:
    prepare(warm, tmp_path, "describe")
    warm.send(Run([case(1)]))
    (result,) = warm.results(1)
    assert result.detail is not None
    assert json.loads(result.detail.value_json) == {"cwd": str(tmp_path), "value": "red", "stdin": ""}


def test_values_that_json_cannot_say_or_that_are_large_are_left_out(
    warm: WarmProcess, tmp_path: Path
) -> None:
    prepare(warm, tmp_path, "unsayable")
    warm.send(Run([case(1)]))
    assert warm.results(1)[0].detail is None


def test_a_large_value_is_left_out_and_its_size_said(warm: WarmProcess, tmp_path: Path) -> None:
    prepare(warm, tmp_path, "large")
    warm.send(Run([case(1)]))
    detail = warm.results(1)[0].detail
    assert detail is not None
    assert (detail.value_json, "20002 bytes" in detail.message) == ("", True)


@pytest.mark.parametrize("function", ["suite:missing", "no_such_module:f", "suite", "suite:__name__"])
def test_a_function_that_is_not_there_is_one_clear_line(
    warm: WarmProcess, tmp_path: Path, function: str
) -> None:
    warm.send(prepare_callable(function, working_dir=str(tmp_path)))
    failed = warm.receive(PrepareFailed)
    assert "\n" not in failed.message
    assert failed.message


def test_what_ended_before_a_death_is_in_the_journal_or_was_sent(warm: WarmProcess, tmp_path: Path) -> None:
    (tmp_path / "mixed.py").write_text("import os\ndef run(die=False):\n    if die: os._exit(7)\n")
    warm.send(prepare_callable("mixed:run", working_dir=str(tmp_path), import_path=[str(tmp_path)]))
    warm.receive(Prepared)
    count = 100
    warm.send(Run([*(case(fence) for fence in range(1, count + 1)), case(999, "[true]")]))
    sent = []
    try:
        while True:
            sent += warm.results(1)
    except EOFError:
        pass
    assert warm.process.wait(PATIENCE_SECONDS) == 7
    known = {r.fence for r in sent} | {r.fence for r in warm.journal.read()}
    assert known == set(range(1, count + 1))
    running = warm.status.read()
    assert running is not None
    assert (running.fence, running.case) == (999, 0)


def test_attempts_that_have_not_begun_can_be_dropped(warm: WarmProcess, tmp_path: Path) -> None:
    prepare(warm, tmp_path, "wait_for")
    go = tmp_path / "go"
    warm.send(Run([case(fence, json.dumps([str(go)])) for fence in (1, 2, 3)]))
    while warm.status.read() is None:
        pass
    warm.send(Drop([1, 2, 77]))
    go.touch()
    answers = [warm.receive(Results | Dropped), warm.receive(Results | Dropped), warm.receive(Results)]  # type: ignore[arg-type]
    dropped = [answer for answer in answers if isinstance(answer, Dropped)]
    assert [answer.fences for answer in dropped] == [[2]]


def test_finish_ends_the_process(warm: WarmProcess, tmp_path: Path) -> None:
    prepare(warm, tmp_path, "add")
    warm.send(Finish())
    assert warm.process.wait(PATIENCE_SECONDS) == 0


def test_finish_ends_a_process_that_was_never_used(warm: WarmProcess) -> None:
    warm.send(Finish())
    assert warm.process.wait(PATIENCE_SECONDS) == 0


def test_a_lost_worker_ends_the_process(warm: WarmProcess) -> None:
    warm.socket.close()
    assert warm.process.wait(PATIENCE_SECONDS) == 0


def test_sigabrt_prints_the_stack_of_a_hanging_case(warm: WarmProcess, tmp_path: Path) -> None:
    prepare(warm, tmp_path, "wait_for")
    path = tmp_path / "never"
    warm.send(Run([case(1, json.dumps([str(path)]))]))
    assert warm.process.stdout is not None
    while not Path(f"{path}.began").exists():
        assert warm.process.poll() is None
    warm.process.send_signal(signal.SIGABRT)
    assert warm.process.wait(PATIENCE_SECONDS) == -signal.SIGABRT
    assert b"in wait_for" in warm.process.stdout.read()
