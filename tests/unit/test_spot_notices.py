"""What a machine's metadata say of its being taken away, asked of a server that answers as the clouds do."""

import json
from collections.abc import Iterator

import pytest

from dtf.adapters.system_clock import SystemClock
from dtf.worker.spot_notices import SpotNotices
from tests.fakes import FakeClock
from tests.machine_metadata import ACTION, EVENTS, PREEMPTED, Metadata


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    """A machine that nobody takes away."""
    metadata = Metadata()
    yield metadata
    metadata.stop()


@pytest.mark.parametrize(
    ("cloud", "path", "answer", "told"),
    [
        (
            "aws",
            ACTION,
            json.dumps({"action": "terminate", "time": "2026-11-23T03:00:00Z"}),
            "EC2 will terminate this instance at 2026-11-23T03:00:00Z",
        ),
        ("gcp", PREEMPTED, "TRUE", "Google Cloud preempts this instance"),
        (
            "azure",
            EVENTS,
            json.dumps({"Events": [{"EventType": "Preempt", "NotBefore": "Mon, 23 Nov 2026 03:00:00 GMT"}]}),
            "Azure ends this machine (Preempt) at Mon, 23 Nov 2026 03:00:00 GMT",
        ),
    ],
)
async def test_the_notice_of_each_cloud_is_heard(
    metadata: Metadata, cloud: str, path: str, answer: str, told: str
) -> None:
    metadata.answers[path] = answer
    assert await SpotNotices(cloud, SystemClock(), url=metadata.url).wait() == told


@pytest.mark.parametrize(
    ("cloud", "path", "none_yet", "answer"),
    [
        ("aws", ACTION, None, '{"action": "stop", "time": "soon"}'),
        ("gcp", PREEMPTED, "FALSE", "TRUE"),
        (
            "azure",
            EVENTS,
            '{"Events": [{"EventType": "Reboot"}]}',
            '{"Events": [{"EventType": "Terminate"}]}',
        ),
    ],
)
async def test_what_is_no_notice_is_not_taken_for_one(
    metadata: Metadata, cloud: str, path: str, none_yet: str | None, answer: str
) -> None:
    if none_yet is not None:
        metadata.answers[path] = none_yet

    class GivesNoticeAfterOneLook(FakeClock):
        async def sleep(self, seconds: float) -> None:
            assert metadata.asked == 1
            metadata.answers[path] = answer

    assert await SpotNotices(cloud, GivesNoticeAfterOneLook(), url=metadata.url).wait()
    assert metadata.asked == 2


async def test_metadata_that_do_not_answer_are_complained_of_once_and_asked_on(
    metadata: Metadata, caplog: pytest.LogCaptureFixture
) -> None:
    metadata.stop()
    looks = 0

    class Patient(FakeClock):
        async def sleep(self, seconds: float) -> None:
            nonlocal looks, metadata
            looks += 1
            if looks == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await SpotNotices("aws", Patient(), url=metadata.url).wait()
    assert len(caplog.records) == 1
    assert "metadata does not answer" in caplog.text
