"""Output that is told again after a broken connection is handed on once."""

from dtf.api.v1 import run_service_pb2
from dtf.client.resumed_output import ResumedOutput


def pieces(*texts: str, task: int = 0) -> list[run_service_pb2.TailLogsResponse]:
    """One stream's pieces of one attempt."""
    return [run_service_pb2.TailLogsResponse(task=task, attempt=1, data=text.encode()) for text in texts]


def handed_on(streams: list[list[run_service_pb2.TailLogsResponse]]) -> str:
    """What a caller gets of streams that begin anew each time."""
    output = ResumedOutput()
    text = ""
    for stream in streams:
        output.begin()
        text += "".join(piece.data.decode() for piece in stream if output.is_news(piece))
    return text


def test_one_stream_is_handed_on_whole() -> None:
    assert handed_on([pieces("abc", "def")]) == "abcdef"


def test_a_second_stream_goes_on_where_the_first_broke_however_it_is_cut() -> None:
    assert handed_on([pieces("abc", "de"), pieces("a", "bcdefg", "h")]) == "abcdefgh"


def test_attempts_are_told_apart() -> None:
    assert handed_on([pieces("abc") + pieces("x", task=1), pieces("abcd") + pieces("xy", task=1)]) == "abcxdy"
