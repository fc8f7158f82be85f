"""`dtf scaling history` and `dtf explain scaling` on recorded and on made-up decisions."""

import json
from pathlib import Path

import pytest

from dtf.adapters.event_lines import format_time
from dtf.adapters.stream_file import StreamFile, StreamFileHeader, writing
from dtf.api.v1 import scaling_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from dtf.cli.scaling_history_command import plot
from dtf.core.scaling.story import tell
from dtf.ports.event_log import StoredCommit

STREAMS = Path(__file__).parents[1] / "streams"
RECORDED = STREAMS / "unequal_commands.scaling.dtfstream"
LOG = STREAMS / "unequal_commands.log.dtfstream"
SECOND = 1_000_000_000


def recorded() -> list[scaling_pb2.ScalingDecision]:
    with StreamFile(RECORDED) as stream:
        return [scaling_pb2.ScalingDecision.FromString(message.payload) for message in stream]


def decision(at: int, desired: int, observed: int, backlog: float) -> scaling_pb2.ScalingDecision:
    return scaling_pb2.ScalingDecision(
        decision_id=f"p/{at}",
        pool="p",
        now_unix_nanos=at * SECOND,
        desired=desired,
        observed=observed,
        demand=scaling_pb2.Demand(backlog_seconds=backlog),
        action=scaling_pb2.SCALING_ACTION_HOLD,
    )


def test_the_history_has_a_curve_of_each_figure_and_a_line_of_each_move(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli(["scaling", "history", "--from", str(RECORDED)]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("│")[0].strip() for line in lines[1:5]] == [
        "desired",
        "requested",
        "observed",
        "backlog",
    ]
    moves = [each for each in recorded() if each.action != scaling_pb2.SCALING_ACTION_HOLD]
    assert [line.split()[1] for line in lines[5:]] == [each.decision_id for each in moves]


def test_the_history_for_machines_has_every_decision(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scaling", "history", "--from", str(RECORDED), "--all", "--json", "--limit", "1000"]
    assert run_cli(arguments) == ExitCode.OK
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["decision_id"] for each in documents] == [each.decision_id for each in recorded()]
    assert documents[0]["at"].endswith("Z")


def test_a_curve_holds_its_value_until_the_next_decision() -> None:
    lines = plot("p", [decision(0, 2, 0, 4.0), decision(5, 4, 2, 0.0), decision(10, 0, 4, 1.0)], columns=10)
    curves = {line.split("│")[0].strip(): line.split("│")[1] for line in lines[1:]}
    assert curves["desired"] == "▄▄▄▄▄█████"
    assert curves["observed"] == "     ▄▄▄▄█"
    assert curves["backlog"] == "██████   ▂"
    assert "most 4.0 s" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", str(LOG)], ExitCode.USAGE, "holds a stream of events"),
        (["--from", str(RECORDED), "--pool", "moon"], ExitCode.EMPTY, "there are decisions about local"),
        (["--from", str(RECORDED), "--since", "2040-01-01T00:00:00Z"], ExitCode.EMPTY, "nothing was decided"),
        (["--from", str(RECORDED), "--since", "soon"], ExitCode.USAGE, "names no point"),
    ],
)
def test_what_cannot_be_shown_is_said(
    arguments: list[str], code: ExitCode, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["scaling", "history", *arguments]) == code
    assert said in capsys.readouterr().err


def explained(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_cli(["explain", "scaling", *([name] if name else []), "--from", str(file)]) == ExitCode.OK
    return capsys.readouterr().out


def test_a_decision_is_told_with_what_it_saw_what_limited_it_and_what_else_there_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "decisions.dtfstream"
    made = decision(7, desired=3, observed=1, backlog=40.0)
    made.action = scaling_pb2.SCALING_ACTION_SCALE_OUT
    made.recommended = 80
    made.demand.queue_depth, made.demand.known_count, made.demand.assumed_seconds = 40, 30, 0.5
    made.rules.add(rule="tolerance", before=80, after=80, reason="the change is large enough")
    made.rules.add(rule="maximum", before=80, after=3, reason="the pool has at most 3")
    made.alternatives.add(description="2 workers: 20.0 s each")
    made.alternatives.add(description="1 worker: 40.0 s each")
    with writing(file, StreamFileHeader("scaling", "default", "0", 0)) as writer:
        writer.write(StoredCommit(1, made.SerializeToString(), "", {}))
    told = explained(file, "p/7", capsys)
    assert "1970-01-01T00:00:07.000000Z  scale out 1 → 3 (pool p)  p/7" in told
    assert "saw       backlog 40.0 s, 40 queued (30 with history, 10 assumed to take 0.5 s a task)" in told
    assert "aim       80 workers" in told
    assert "limited   maximum: 80 → 3, the pool has at most 3" in told
    assert "asked     tolerance: no change" in told
    assert "instead   2 workers: 20.0 s each\n  instead   1 worker" in told


def test_a_decision_is_found_by_sequence_by_time_and_as_the_newest_move(
    capsys: pytest.CaptureFixture[str],
) -> None:
    decisions = recorded()
    sequence = decisions[len(decisions) // 2].log_sequence
    by_sequence = [each for each in decisions if each.log_sequence <= sequence][-1]
    assert f"{by_sequence.decision_id}, up to" in explained(RECORDED, str(sequence), capsys)
    second = decisions[1]
    assert f"{second.decision_id}, up to" in explained(RECORDED, format_time(second.now_unix_nanos), capsys)
    assert f"{decisions[-1].decision_id}, up to" in explained(RECORDED, "", capsys)


@pytest.mark.parametrize(
    ("name", "said"),
    [("local/999", "there is no decision local/999"), ("2020-01-01T00:00:00Z", "nothing was decided up to")],
)
def test_a_decision_that_is_not_there_is_said_to_be_missing(
    name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["explain", "scaling", name, "--from", str(RECORDED)]) != ExitCode.OK
    assert said in capsys.readouterr().err


def test_every_kind_of_observation_has_words() -> None:
    kinds = [field.name for field in scaling_pb2.Observation.DESCRIPTOR.oneofs_by_name["observation"].fields]
    said = []
    for kind in kinds:
        seen = scaling_pb2.Observation()
        part = getattr(seen, kind)
        if isinstance(part, str):
            setattr(seen, kind, "w-1")
        else:
            part.SetInParent()
        said += [
            text for word, text in tell(scaling_pb2.ScalingDecision(observations=[seen])) if word == "heard"
        ]
    assert len(said) == len(kinds)
    assert not [text for text in said if "does not know" in text]


def test_what_a_stranger_wrote_on_the_stream_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "strange.dtfstream"
    with writing(file, StreamFileHeader("scaling", "default", "0", 0)) as writer:
        writer.write(StoredCommit(1, b"\xff\xff", "", {}))
        writer.write(StoredCommit(2, decision(1, 2, 2, 0.0).SerializeToString(), "", {}))
    assert run_cli(["scaling", "history", "--from", str(file), "--all"]) == ExitCode.OK
    assert "p/1" in capsys.readouterr().out
