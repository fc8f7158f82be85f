"""`dtf replay|state|bisect|explain|capsule|events export` on recorded streams, without a broker."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dtf.adapters.stream_file import StreamFile, StreamFileHeader, writing
from dtf.api.v1 import common_pb2, events_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from dtf.core.snapshot import read_snapshot
from dtf.ports.event_log import StoredCommit
from dtf.settings.code_version import code_version
from tests.streams.scenario import DIRECTORY, Scenario, scenarios

Dtf = Callable[..., int]
Ask = Callable[..., dict[str, Any]]
RELEASED = DIRECTORY / "releases" / "0.1.0"  # never recorded anew, so that what is in them can be named here
LOST_WORKER = RELEASED / "lost_worker.dtfstream"
PYTEST_SUITE = RELEASED / "pytest_suite.dtfstream"
KILLED_WORKER = Scenario("killed_worker").file("events")
"""Decided by the rules of today."""
HEADER = StreamFileHeader("events", "default", "test", 0)


@pytest.fixture
def dtf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dtf:
    """A command in a project where nothing runs."""
    (tmp_path / "dtf.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_cli(["--project", str(tmp_path), *map(str, words)])


@pytest.fixture
def ask(dtf: Dtf, capsys: pytest.CaptureFixture[str]) -> Ask:
    """What a command answers with --json."""

    def run(*words: object, code: int = ExitCode.OK) -> dict[str, Any]:
        capsys.readouterr()
        assert dtf(*words, "--json") == code, capsys.readouterr().err
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return run


def rewritten(source: Path, target: Path, change: Callable[[events_pb2.Commit, int], None]) -> Path:
    """A log whose commits were changed, and chained anew so that the chain does not tell."""
    previous = b""
    with writing(target, HEADER) as writer, StreamFile(source) as stream:
        for stored in stream:
            commit = events_pb2.Commit.FromString(stored.payload)
            change(commit, stored.sequence)
            commit.prev_hash = previous
            payload = commit.SerializeToString()
            previous = hashlib.sha256(payload).digest()
            writer.write(StoredCommit(stored.sequence, payload, previous.hex(), stored.headers))
    return target


def of_this_version(commit: events_pb2.Commit, _sequence: int) -> None:
    commit.code_version = code_version()


# -- replay


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_a_recorded_log_is_proved_and_comes_to_the_same_hash_everywhere(
    scenario: Scenario, ask: Ask, tmp_path: Path
) -> None:
    hashes = tmp_path / "hashes"
    first = ask("replay", scenario.file("events"), "--derive-all", "--hashes", hashes)
    again = ask("replay", "--from", scenario.file("events"), "--expect", hashes)
    assert first["is_proved"]
    assert first["decisions"] > 0
    assert first["state_hash"] == again["state_hash"] == scenario.golden["coordinator"]["state_hash"]
    assert again["hashes_matched"] == first["last_sequence"]


def test_decisions_of_other_versions_are_folded_and_counted(ask: Ask, tmp_path: Path) -> None:
    own = rewritten(KILLED_WORKER, tmp_path / "own", of_this_version)
    assert ask("replay", LOST_WORKER)["folded_commits"] == {"0.1.0": 46}
    assert ask("replay", own)["derived_commits"] == 46


def test_another_verdict_is_found_at_its_sequence(ask: Ask, tmp_path: Path) -> None:
    def forge(commit: events_pb2.Commit, sequence: int) -> None:
        of_this_version(commit, sequence)
        for event in commit.events:
            if event.HasField("run_finished"):
                event.run_finished.counts.passed += 1

    document = ask("replay", rewritten(KILLED_WORKER, tmp_path / "forged", forge), code=ExitCode.FAILED)
    assert document["failure"]["sequence"] == 42
    assert "run_finished" in document["failure"]["what"]


def test_hashes_of_another_log_differ_at_the_first_sequence(ask: Ask, tmp_path: Path) -> None:
    hashes = tmp_path / "hashes"
    ask("replay", LOST_WORKER, "--hashes", hashes, "--every", "10")
    assert [line.split()[0] for line in hashes.read_text().splitlines()[1:]] == ["10", "20", "30", "40"]
    document = ask("replay", PYTEST_SUITE, "--expect", hashes, code=ExitCode.FAILED)
    assert document["failure"]["sequence"] == 10
    assert "the commit is another" in document["failure"]["what"]


def test_a_state_that_another_version_folds_otherwise_is_told_from_another_log(
    ask: Ask, tmp_path: Path
) -> None:
    hashes = tmp_path / "hashes"
    ask("replay", LOST_WORKER, "--hashes", hashes)
    lines = hashes.read_text().splitlines()
    sequence, commit_hash, _ = lines[5].split()
    lines[5] = f"{sequence} {commit_hash} {'0' * 64}"
    hashes.write_text("\n".join(lines))
    document = ask("replay", LOST_WORKER, "--expect", hashes, code=ExitCode.FAILED)
    assert document["failure"]["sequence"] == int(sequence)
    assert "the commits are the same and the state is not" in document["failure"]["what"]


def test_a_changed_last_commit_is_not_passed_over(ask: Ask, tmp_path: Path) -> None:
    """In the middle the chain breaks; only at the end nothing after it tells."""

    forged = tmp_path / "forged"
    with writing(forged, HEADER) as writer, StreamFile(LOST_WORKER) as stream:
        for stored in stream:
            if stored.sequence == 46:
                commit = events_pb2.Commit.FromString(stored.payload)
                commit.prev_hash = b"x" * 32
                payload = commit.SerializeToString()
                stored = StoredCommit(46, payload, hashlib.sha256(payload).hexdigest(), stored.headers)
            writer.write(stored)
    document = ask("replay", forged, code=ExitCode.FAILED)
    assert document["failure"]["sequence"] == 46
    assert document["stale_commits"] == [46]


def test_a_run_is_replayed_up_to_its_end(ask: Ask) -> None:
    assert ask("replay", "hz6d", "--from", LOST_WORKER)["last_sequence"] == 42
    assert ask("replay", "--from", LOST_WORKER, "--to-seq", "9")["last_sequence"] == 9


# -- state


def test_state_shows_what_was_true_then(ask: Ask) -> None:
    before = ask("state", "--from", LOST_WORKER, "--at", "17")
    after = ask("state", "--from", LOST_WORKER, "--at", "18")
    assert (before["workers"]["local-1"]["state"], after["workers"]["local-1"]["state"]) == ("active", "lost")
    assert (before["queued"], after["queued"]) == (16, 18)
    assert {lease["worker"] for lease in after["leases"]} == {"local-2", "local-3"}
    at_time = ask("state", "--from", LOST_WORKER, "--at", after["time"])
    assert at_time == after
    assert ask("state", "--from", LOST_WORKER)["sequence"] == 46


def test_state_of_one_task_has_its_cases(ask: Ask) -> None:
    document = ask("state", "--from", PYTEST_SUITE, "--run", "mv", "--task", "0")
    assert [case["verdict"] for case in document["task"]["cases"]] == ["failed", "flaky"]
    assert {case["verdict"] for case in document["trouble"]} == {"failed", "flaky", "error"}


# -- bisect


def test_bisect_finds_the_first_commit_and_no_other(ask: Ask) -> None:
    document = ask("bisect", "no-lost-worker", "--from", LOST_WORKER, code=ExitCode.FAILED)
    assert document["sequence"] == 18
    assert document["commands"] == ["ExpireWorkers"]
    assert {"path": "workers.local-1.state", "before": "active", "after": "lost"} in document["changes"]
    assert ask("bisect", "all", "--from", LOST_WORKER)["holds"] is True


def test_bisect_takes_a_check_of_ones_own(ask: Ask, dtf: Dtf, tmp_path: Path) -> None:
    (tmp_path / "own_checks.py").write_text(
        "def few_queued(state):\n"
        "    return ['too many'] if state.queued_count > 20 else []\n"
        "def says_text(state):\n"
        "    return 'no list'\n"
    )
    found = ask("bisect", "own_checks:few_queued", "--from", LOST_WORKER, code=ExitCode.FAILED)
    state = ask("state", "--from", LOST_WORKER, "--at", str(found["sequence"] - 1))
    assert state["queued"] <= 20
    assert ask("state", "--from", LOST_WORKER, "--at", str(found["sequence"]))["queued"] > 20
    assert dtf("bisect", "own_checks:says_text", "--from", LOST_WORKER) == ExitCode.USAGE
    assert dtf("bisect", "own_checks:missing", "--from", LOST_WORKER) == ExitCode.USAGE


# -- explain


def test_explain_says_why_a_task_was_tried_again(ask: Ask) -> None:
    story = ask("explain", "hz6d/9", "--from", LOST_WORKER)
    texts = [line["text"] for line in story["lines"]]
    assert [line["sequence"] for line in story["lines"]] == [4, 14, 18, 19, 25]
    assert "because worker local-1 was killed by signal 9, which held 2 leases; queued again" in texts[2]
    assert texts[3].startswith("attempt 2 granted to local-2")
    assert texts[4].startswith("verdict PASSED")


def test_explain_tells_of_runs_cases_and_workers(ask: Ask) -> None:
    run = ask("explain", "run", "mvyy", "--from", PYTEST_SUITE)
    assert run["lines"][-1]["text"].startswith("finished after 2.86 s: 13 passed, 1 failed, 1 error")
    case = ask("explain", "case", "test_suite.py::test_is_flaky", "--from", PYTEST_SUITE)
    assert "AssertionError: the first time it fails; it is tried again" in case["lines"][2]["text"]
    assert case["lines"][-1]["text"].startswith("verdict FLAKY")
    assert not any("test_fails" in line["text"] for line in case["lines"])
    worker = ask("explain", "local-1", "--from", LOST_WORKER)
    assert [line["text"].split()[0] for line in worker["lines"]] == ["registered", "9", "lost:", "2"]


def test_explain_says_why_a_task_waits_now(ask: Ask, dtf: Dtf, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    assert dtf("events", "export", cut, "--to-seq", "18", "--from", LOST_WORKER) == ExitCode.OK
    waiting = ask("explain", "hz6d/29", "--from", cut)
    assert waiting["now"].startswith("now: queued behind 17 tasks; 2 workers with 2 slots can run it")
    leased = ask("explain", "hz6d/10", "--from", cut)
    assert leased["now"].startswith("now: leased to") or leased["now"] == ""


# -- export


def test_a_slice_is_looked_at_and_not_folded(
    dtf: Dtf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut"
    assert dtf("events", "export", cut, "--from-seq", "5", "--to-seq", "9", "--from", LOST_WORKER) == 0
    capsys.readouterr()
    assert dtf("events", "tail", "--from", cut, "--from-seq", "1", "--json") == ExitCode.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["sequence"] for line in lines} == set(range(5, 10))
    assert dtf("replay", cut) == ExitCode.FAILED
    assert "begins at 5, and no snapshot says what was before" in capsys.readouterr().err


def test_a_run_is_exported_from_its_first_commit_to_its_last(dtf: Dtf, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    assert dtf("events", "export", cut, "--run", "mvyy", "--from", PYTEST_SUITE) == ExitCode.OK
    with StreamFile(cut) as stream:
        assert [message.sequence for message in stream] == list(range(4, 26))


# -- capsule


@pytest.fixture(params=["", "names", "output", "names,output"])
def redact(request: pytest.FixtureRequest) -> list[str]:
    return ["--redact", str(request.param)] if request.param else []


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_a_capsule_replays_elsewhere_with_the_same_decisions(
    scenario: Scenario, redact: list[str], ask: Ask, tmp_path: Path
) -> None:
    log = rewritten(scenario.file("events"), tmp_path / "log", of_this_version)
    runs = list(ask("state", "--from", log)["runs"])
    capsule = tmp_path / "x.dtfcapsule"
    written = ask("capsule", runs[-1], "--from", log, "--to", capsule, *redact)
    assert written["is_proved"]
    found = ask("replay", capsule)
    assert found["decisions"] > 0
    assert found["hashes_matched"] == 1
    assert found["first_sequence"] > 1, "the snapshot stands for what was before"


def test_a_redacted_capsule_has_no_name_and_no_output(ask: Ask, tmp_path: Path) -> None:
    capsule = tmp_path / "x.dtfcapsule"
    ask("capsule", "mvyy", "--from", PYTEST_SUITE, "--to", capsule, "--redact", "names,output")
    with StreamFile(capsule) as stream:
        snapshot = read_snapshot(stream.attachments["snapshot"]).state
        manifest = stream.attachments["capsule.json"]
        held = b"".join([manifest, snapshot, *(m.payload for m in stream)])
    for secret in (b"flaky", b"test_suite", b"recorder", b"tester", b"AssertionError", b"dtf-recording"):
        assert secret not in held, secret
    with StreamFile(PYTEST_SUITE) as stream:
        assert b"flaky" in b"".join(m.payload for m in stream)
    story = ask("explain", "mvyy", "--from", capsule)
    plain = ask("explain", "mvyy", "--from", PYTEST_SUITE)
    assert [line["sequence"] for line in story["lines"]] == [line["sequence"] for line in plain["lines"]]


def test_a_capsule_never_has_the_secrets_of_the_settings(ask: Ask, dtf: Dtf, tmp_path: Path) -> None:
    (tmp_path / "dtf.toml").write_text('[nats]\nurl = "nats://u:hunter2@127.0.0.1:4222"\n')
    capsule = tmp_path / "x.dtfcapsule"
    ask("capsule", "mvyy", "--from", PYTEST_SUITE, "--to", capsule)
    with StreamFile(capsule) as stream:
        manifest = json.loads(stream.attachments["capsule.json"])
    assert "hunter2" not in json.dumps(manifest)
    assert manifest["settings"]["nats.url"] == "nats://u:***@127.0.0.1:4222"
    assert not [path for path in manifest["settings"] if "token" in path or "credentials" in path]
    assert manifest["versions"]["packages"]["dtf"]


def test_a_capsule_that_was_forged_is_not_proved(ask: Ask, tmp_path: Path) -> None:
    capsule, forged = tmp_path / "x", tmp_path / "y"
    ask("capsule", "mvyy", "--from", PYTEST_SUITE, "--to", capsule)

    def messages() -> Iterator[StoredCommit]:
        previous = None
        with StreamFile(capsule) as stream:
            for stored in stream:
                commit = events_pb2.Commit.FromString(stored.payload)
                for event in commit.events:
                    verdicts = event.results_accepted.verdicts
                    verdicts[:] = [common_pb2.VERDICT_PASSED for _ in verdicts]
                commit.prev_hash = previous or commit.prev_hash
                payload = commit.SerializeToString()
                previous = hashlib.sha256(payload).digest()
                yield StoredCommit(stored.sequence, payload, previous.hex(), {})

    with StreamFile(capsule) as stream:
        attachments = stream.attachments
    with writing(forged, HEADER, attachments) as writer, closing(messages()) as changed:  # type: ignore[type-var]
        for message in changed:
            writer.write(message)
    document = ask("replay", forged, code=ExitCode.FAILED)
    assert document["failure"]["sequence"] == 25


# -- what cannot be done


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["replay"], ExitCode.UNAVAILABLE, "no broker"),
        (["replay", "nope", "--from", LOST_WORKER], ExitCode.FAILED, "is no file, and"),
        (["replay", LOST_WORKER, "--from", LOST_WORKER], ExitCode.USAGE, "say the same twice"),
        (["replay", __file__], ExitCode.FAILED, "is no stream file"),
        (["replay", LOST_WORKER, "--expect", __file__], ExitCode.USAGE, "no file of `dtf replay --hashes`"),
        (["state", "--from", LOST_WORKER, "--at", "99"], ExitCode.USAGE, "no sequence 99: it holds 1 to 46"),
        (["state", "--from", LOST_WORKER, "--at", "noon"], ExitCode.USAGE, "names no point of the log"),
        (["state", "--from", LOST_WORKER, "--at", "2001-01-01T00:00:00Z"], ExitCode.FAILED, "begins after"),
        (["state", "--from", LOST_WORKER, "--run", "zz"], ExitCode.FAILED, "there is no run zz"),
        (["state", "--from", LOST_WORKER, "--worker", "zz"], ExitCode.FAILED, "there is no worker zz"),
        (["state", "--from", LOST_WORKER, "--task", "1"], ExitCode.USAGE, "name it with --run"),
        (["bisect", "nonsense", "--from", LOST_WORKER], ExitCode.USAGE, "no invariant 'nonsense'"),
        (["explain", "nope", "--from", LOST_WORKER], ExitCode.FAILED, "the log knows no"),
        (["explain", "hz6d/30", "--from", LOST_WORKER], ExitCode.USAGE, "has 30 tasks, counted from 0"),
        (["capsule", "nope", "--from", LOST_WORKER], ExitCode.FAILED, "knows no run nope"),
        (["capsule", "hz6d", "--redact", "all", "--from", LOST_WORKER], ExitCode.USAGE, "cannot be redacted"),
        (["events", "export", "x", "--from-seq", "99", "--from", LOST_WORKER], ExitCode.FAILED, "asked for"),
        (["replay", "--from", "."], ExitCode.USAGE, "no archive of a log"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(
    dtf: Dtf, capsys: pytest.CaptureFixture[str], words: list[object], code: ExitCode, said: str
) -> None:
    assert dtf(*words) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["replay", "state", "bisect", "explain", "capsule"])
def test_the_help_shows_an_example(dtf: Dtf, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert dtf(name, "--help") == ExitCode.OK
    assert f"dtf {name}" in capsys.readouterr().out
