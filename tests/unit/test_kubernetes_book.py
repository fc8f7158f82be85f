"""What a Kubernetes provider makes of lists and changes that come late, twice or not at all."""

from typing import Any

from dtf.adapters.kubernetes_book import Found, Launch, LaunchBook
from dtf.adapters.kubernetes_fate import Hindrance
from dtf.adapters.kubernetes_objects import LAUNCH_ANNOTATION, Json
from dtf.ports.capacity import InstanceState


def pod_of(launch_id: str, phase: str = "Running", *, uid: str = "u1", code: int | None = None) -> Json:
    """A pod that is a launch."""
    status: Json = {"phase": phase}
    if code is not None:
        state = {"terminated": {"exitCode": code, "reason": "Error"}}
        status["containerStatuses"] = [{"name": "worker", "state": state}]
    metadata: dict[str, Any] = {
        "name": launch_id,
        "namespace": "tests",
        "uid": uid,
        "creationTimestamp": "2026-11-23T01:00:00Z",
        "annotations": {LAUNCH_ANNOTATION: launch_id},
    }
    return {"kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": status}


def waiting_pod(launch_id: str, reason: str) -> Json:
    """A pod whose container waits."""
    pod = pod_of(launch_id, "Pending")
    waiting = {"reason": reason, "message": "so"}
    pod["status"]["containerStatuses"] = [{"name": "worker", "image": "i:1", "state": {"waiting": waiting}}]
    return pod


def book_of(**patience: float) -> LaunchBook:
    """An empty book."""
    return LaunchBook({each: patience.get(each.name.lower(), 60.0) for each in Hindrance})


def made(book: LaunchBook, launch_id: str, pod: Json | None = None) -> Launch:
    """A launch that was asked for and made."""
    launch = book.expect(launch_id)
    book.made(launch, Found(pod or pod_of(launch_id)), 0.0)
    return launch


def absorb(book: LaunchBook, *pods: Json, now: float = 0.0) -> list[Found]:
    """A whole list of these."""
    return book.absorb_list(book.begin_list(), [Found(pod) for pod in pods], now)


def test_a_list_begun_before_a_launch_may_lack_it() -> None:
    book = book_of()
    number = book.begin_list()
    made(book, "a-1")
    book.absorb_list(number, [], 0.0)
    assert [each.state for each in book.instances()] == [InstanceState.RUNNING]
    absorb(book)
    assert [each.state for each in book.instances()] == [InstanceState.EXITED]


def test_a_launch_that_is_being_made_is_neither_listed_nor_gone() -> None:
    book = book_of()
    book.expect("a-1")
    absorb(book)
    assert book.instances() == []
    assert book.take_exits() == []


def test_an_exit_is_told_once_and_is_final() -> None:
    book = book_of()
    made(book, "a-1")
    book.absorb_change("MODIFIED", pod_of("a-1", "Failed", code=3), 0.0)
    assert [each.reason for each in book.take_exits()] == ["exited with code 3"]
    book.absorb_change("MODIFIED", pod_of("a-1", "Running"), 0.0)
    absorb(book, pod_of("a-1", "Running"))
    absorb(book)
    assert [each.reason for each in book.instances()] == ["exited with code 3"]
    assert book.take_exits() == []


def test_what_was_forgotten_stays_forgotten_while_it_is_there_and_is_handed_out_for_removal() -> None:
    book = book_of()
    launch = made(book, "a-1")
    book.absorb_change("DELETED", pod_of("a-1", "Failed", code=3), 0.0)
    book.forget(launch)
    left = absorb(book, pod_of("a-1", "Failed", code=3))
    assert [found.thing["metadata"]["name"] for found in left] == ["a-1"]
    book.absorb_change("MODIFIED", pod_of("a-1", "Failed", code=3), 0.0)
    assert book.instances() == []
    absorb(book)
    absorb(book, pod_of("a-1", uid="u2"))
    assert [each.state for each in book.instances()] == [InstanceState.RUNNING]


def test_a_hindrance_counts_from_when_it_was_seen_and_ends_when_it_is_gone() -> None:
    book = book_of(image=10.0)
    launch = made(book, "a-1", waiting_pod("a-1", "ErrImagePull"))
    book.absorb_change("MODIFIED", waiting_pod("a-1", "ImagePullBackOff"), 6.0)
    assert book.hopeless(9.9) == []
    assert book.hopeless(10.0) == [launch]
    book.absorb_change("MODIFIED", pod_of("a-1"), 11.0)
    assert book.hopeless(100.0) == []
    book.absorb_change("MODIFIED", waiting_pod("a-1", "ErrImagePull"), 100.0)
    assert book.hopeless(105.0) == []


def test_what_is_given_up_says_what_kept_it_and_what_was_ended_unstarted_is_clean() -> None:
    book = book_of()
    book.give_up(made(book, "a-1", waiting_pod("a-1", "ErrImagePull")))
    launch = made(book, "a-2")
    launch.is_ended_by_us = True
    book.ended_unstarted(launch)
    told = book.take_exits()
    assert [each.reason for each in told] == [
        "was given up: the image i:1 cannot be pulled: ErrImagePull: so",
        "was ended before it started",
    ]
    assert [each.is_clean for each in told] == [False, True]
