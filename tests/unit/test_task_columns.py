"""Tasks of a request as columns: the short way for bare names gives what reading every field gives."""

from hypothesis import example, given
from hypothesis import strategies as st

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.core.run.task_columns import TaskColumns

LONG = "n" * 126

_names = st.sampled_from(["", "a", "test[1]", "n" * 125, LONG, "n" * 300, "ü", "test[2]"])
_specs = st.builds(
    common_pb2.TaskSpec,
    name=_names,
    template=st.sampled_from([0, 0, 0, 1, 300]),
    payload=st.sampled_from(["", "", "", "[1]"]),
    cases=st.sampled_from([[], [], [], ["c"], [""]]),
    expected_seconds=st.sampled_from([0.0, 0.0, 0.0, 1.5]),
    priority=st.sampled_from([0, 0, 0, -1, 5]),
    positions=st.sampled_from([[], [], [], [0], [7]]),
)


def request(
    *specs: common_pb2.TaskSpec, batch: int = 7, seal: bool = False
) -> run_service_pb2.SubmitTasksRequest:
    return run_service_pb2.SubmitTasksRequest(run_id="7f3k", tasks=specs, batch=batch, seal=seal)


@given(
    specs=st.lists(_specs, max_size=6),
    batch=st.sampled_from([0, 1, 127, 128, 2**40]),
    seal=st.booleans(),
)
@example(specs=[common_pb2.TaskSpec(template=1), common_pb2.TaskSpec(name="a")], batch=1, seal=False)
@example(specs=[common_pb2.TaskSpec(name=LONG), common_pb2.TaskSpec(name="a")], batch=1, seal=True)
def test_every_field_is_as_it_was_sent(specs: list[common_pb2.TaskSpec], batch: int, seal: bool) -> None:
    sent = request(*specs, batch=batch, seal=seal)
    received = run_service_pb2.SubmitTasksRequest.FromString(sent.SerializeToString())
    assert TaskColumns.of_request(received) == TaskColumns.read(list(sent.tasks))


def test_an_unknown_field_takes_the_long_way() -> None:
    """A later version's field in one task, of as many bytes as another name is shorter, hides nothing."""
    spec = common_pb2.TaskSpec(name="a", template=3).SerializeToString()
    field = run_service_pb2.SubmitTasksRequest.DESCRIPTOR.fields_by_name["tasks"].number
    data = request().SerializeToString() + bytes([field << 3 | 2, len(spec)]) + spec
    received = run_service_pb2.SubmitTasksRequest.FromString(data)
    assert TaskColumns.of_request(received).templates == [3]
