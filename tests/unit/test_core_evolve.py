"""evolve gets past every event, whatever it holds."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtf.api.v1 import events_pb2
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.core.run.state_hash import state_hash
from tests.unit.core_world import World, columns, task

SMALL = st.integers(0, 6)
TEXT = st.sampled_from(["a", "b", "w", "v", ""])


def values(field: Any) -> st.SearchStrategy[Any]:
    """Values of one field, small ones so that they meet what is there."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return TEXT.map(str.encode) if field.type == FieldDescriptor.TYPE_BYTES else TEXT
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(0, 1000, width=32)
        case FieldDescriptor.CPPTYPE_MESSAGE:
            assert field.message_type is not None
            return messages(GetMessageClass(field.message_type))
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return SMALL | st.sampled_from([70_000, 2**32 - 1])
        case _:
            return SMALL


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Messages with any of their fields."""

    def build(data: dict[str, Any]) -> Message:
        return kind(**data)

    fields = [field for field in kind.DESCRIPTOR.fields if not _is_map(field)]
    return st.fixed_dictionaries(
        {},
        optional={
            field.name: st.lists(values(field), max_size=4) if field.is_repeated else values(field)
            for field in fields
            if field.containing_oneof is None
        },
    ).map(build)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def events_of(field: Any) -> st.SearchStrategy[events_pb2.Event]:
    """Events of one kind."""

    def wrap(message: Message) -> events_pb2.Event:
        chosen: dict[str, Any] = {field.name: message}
        return events_pb2.Event(**chosen)

    return messages(GetMessageClass(field.message_type)).map(wrap)


EVENTS = st.one_of(*map(events_of, events_pb2.Event.DESCRIPTOR.fields))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENTS, max_size=8))
def test_no_event_raises_whatever_it_names(events: list[events_pb2.Event]) -> None:
    world = World()
    world.worker("w", slots=3)
    world.run("a", [task("one"), task("shard", ["x", "y"]), task("three")], seal=False)
    world.run("b", [task("one")])
    world.grant(w=3)
    world.report("w", columns("a", [1]))
    for sequence, event in enumerate(events, 100):
        evolve(world.state, event, sequence, sequence)
    state_hash(world.state)


def test_an_event_of_a_later_version_changes_nothing() -> None:
    state = State()
    evolve(state, events_pb2.Event.FromString(b"\xfa\x3f\x02hi"))
    assert state == State()
