"""`dtf check` and `dtf fork` on recorded logs."""

import json
from pathlib import Path

import pytest

from dtf.adapters.stream_file import StreamFile, StreamFileHeader, writing
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from tests.unit.check_history import STREAMS

LOG = STREAMS / "lost_worker" / "events.dtfstream"
SCALING = STREAMS / "lost_worker" / "scaling.dtfstream"


def without_message(target: Path, sequence: int) -> Path:
    """The recorded log without one of its messages."""
    with StreamFile(LOG) as source, writing(target, source.header) as writer:
        for message in source:
            if message.sequence != sequence:
                writer.write(message)
    return target


def test_check_prints_each_property_and_that_the_log_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["check", "--from", str(LOG), "--scaling", str(SCALING)]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:25]}
    assert rows["one-lease"] == ["33", "0"]
    assert rows["scaling-decisions"] == ["13", "0"]
    assert rows["commit-before-grant"][:2] == ["-", "-"]
    assert lines[-1] == "clean"


def test_check_of_a_broken_log_says_where_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = without_message(tmp_path / "broken.dtfstream", 20)
    assert run_cli(["check", "--from", str(broken)]) == ExitCode.FAILED
    output = capsys.readouterr().out
    assert "chain: message 21: message 21 follows message 19; those between are missing" in output
    assert output.splitlines()[-1].endswith("violations")


def test_check_as_json_tells_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = without_message(tmp_path / "broken.dtfstream", 20)
    assert run_cli(["check", "--from", str(broken), "--json"]) == ExitCode.FAILED
    document = json.loads(capsys.readouterr().out)
    assert document["clean"] is False
    chain = next(each for each in document["properties"] if each["property"] == "chain")
    assert chain["violations"] == 1
    assert chain["first"][0]["sequence"] == 21


def test_check_of_a_log_that_does_not_begin_at_its_beginning_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tail = without_message(tmp_path / "tail.dtfstream", 1)
    assert run_cli(["check", "--from", str(tail)]) == ExitCode.FAILED
    assert "begins at message 2; a history is checked from its first" in capsys.readouterr().err


def test_check_holds_journals_against_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journals = tmp_path / "journal"
    journals.mkdir()
    (journals / "client-1.jsonl").write_text('{"what":"run","run_id":"gone","request_id":"r"}\n')
    assert run_cli(["check", "--from", str(LOG), "--journal", str(journals)]) == ExitCode.FAILED
    assert "the log has no such run" in capsys.readouterr().out


def test_check_refuses_a_directory_without_journals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["check", "--from", str(LOG), "--journal", str(tmp_path)]) == ExitCode.USAGE
    assert "holds no journal" in capsys.readouterr().err


def test_check_of_an_empty_log_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.dtfstream"
    with writing(empty, StreamFileHeader("events", "default", "test", 0)):
        pass
    assert run_cli(["check", "--from", str(empty)]) == ExitCode.OK
    assert "0 commits, 0 events" in capsys.readouterr().out


def test_fork_compares_with_the_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["fork", "--from", str(LOG), "--at", "20", "--fault", "worker-lost"]) == ExitCode.OK
    output = capsys.readouterr().out
    assert "forked after sequence 20: worker-lost; seed 0" in output
    assert "recorded          fork    with fault" in output
    assert "verdicts that differ from the recording: 0" in output
    assert output.splitlines()[-1].endswith("clean")


def test_fork_as_json_and_the_same_seed_end_in_the_same_hash(capsys: pytest.CaptureFixture[str]) -> None:
    def document(seed: int) -> dict[str, object]:
        arguments = ["fork", "--from", str(LOG), "--at", "20", "--fault", "drain", "--json"]
        assert run_cli([*arguments, "--seed", str(seed)]) == ExitCode.OK
        told: dict[str, object] = json.loads(capsys.readouterr().out)
        return told

    first = document(1)
    assert first["last_message_id"] == document(1)["last_message_id"] != document(2)["last_message_id"]
    assert first["different_verdicts"] == 0
    assert set(first["logs"]) == {"recorded", "fork", "with fault"}  # type: ignore[call-overload]  # plain data


def test_an_exported_fork_is_a_log_that_checks_and_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "fork.dtfstream"
    arguments = ["fork", "--from", str(LOG), "--at", "20", "--fault", "coordinator-restart"]
    assert run_cli([*arguments, "--export", str(target)]) == ExitCode.OK
    assert run_cli(["check", "--from", str(target)]) == ExitCode.OK
    assert run_cli(["replay", "--from", str(target)]) == ExitCode.OK
    assert "decisions of" in capsys.readouterr().out


def test_fork_lists_its_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["fork", "--list"]) == ExitCode.OK
    assert "slow-worker[:xFACTOR[,WORKER]]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "20", "--fault", "earthquake"], "there is no fault 'earthquake'"),
        (["--at", "9999"], "it cannot be forked at 9999"),
        (["--at", "20", "--fault", "worker-lost:nobody"], "no worker 'nobody' is there"),
    ],
)
def test_fork_says_what_cannot_be(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["fork", "--from", str(LOG), *arguments]) == ExitCode.USAGE
    assert said in capsys.readouterr().err
