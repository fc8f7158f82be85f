"""Events as lines."""

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.unfold import Line, Unfolder
from tests.unit.core_world import FAILED, PASSED, World, columns, task


def lines_of(world: World) -> list[Line]:
    unfolder = Unfolder()
    return [line for _, events in world.commits for event in events for line in unfolder.unfold(event)]


def test_a_run_reads_as_a_story_of_tasks_and_cases() -> None:
    world = World()
    world.worker("w", slots=2)
    world.run("a", [task("one"), task("shard", ["x", "y"])])
    world.grant(w=2)
    failed = columns("a", [1, 2, 2], [PASSED, FAILED, PASSED], [0, 1, 0])
    failed.details.extend([b"", events_pb2.CaseDetail(message="assert 1 == 2").SerializeToString(), b""])
    world.report("w", failed)
    lines = lines_of(world)
    assert [line.type_name for line in lines] == [
        *["LeaderElected", "WorkerRegistered", "RunCreated"],
        *["TaskSubmitted", "TaskSubmitted", "SubmissionSealed", "TaskLeased", "TaskLeased"],
        *["CasePassed", "CaseFailed", "CasePassed", "TaskFailed", "RunFinished"],
    ]
    assert lines[4].body == {"task": 1, "name": "shard", "case_count": 2}
    assert lines[9] == Line(
        "a",
        "CaseFailed",
        {
            "task": 1,
            "case": 1,
            "case_name": "y",
            "worker_id": "w",
            "fence": 2,
            "duration_seconds": 0.01,
            "message": "assert 1 == 2",
        },
    )
    assert lines[11].body == {"task": 1, "name": "shard", "worker_id": "w", "message": "assert 1 == 2"}
    assert lines[0].run_id == ""


def test_an_attempt_that_ends_badly_says_so() -> None:
    ended = events_pb2.AttemptsEnded(
        run_id="a",
        worker_id="w",
        tasks=[4],
        fences=[9],
        outcomes=[common_pb2.OUTCOME_CRASHED],
        requeued=[False],
        running_cases=[1],
        verdicts=[common_pb2.VERDICT_ERROR],
        remaining_verdicts=[0],  # type: ignore[list-item]  # UNSPECIFIED
        reasons=["killed by signal 11"],
    )
    lines = list(Unfolder().unfold(events_pb2.Event(attempts_ended=ended)))
    assert [line.type_name for line in lines] == ["AttemptEnded", "CaseErred", "TaskFailed"]
    assert lines[0].body["outcome"] == "crashed"
    assert lines[2].body["reason"] == "killed by signal 11"
