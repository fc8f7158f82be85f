"""The feed of commits for watchers."""

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.coordinator import commit_feed
from dtf.coordinator.bell import Bell
from dtf.coordinator.commit_feed import CommitFeed, FeedCommit, WatchFilter, feed_commit


def commit_of(sequence: int, *run_ids: str) -> FeedCommit:
    """A commit that ends runs."""
    events = [events_pb2.Event(run_finished=events_pb2.RunFinished(run_id=run_id)) for run_id in run_ids]
    return feed_commit(sequence, sequence, 100, events)


def test_watchers_that_want_the_same_share_one_encoding() -> None:
    feed = CommitFeed(0, Bell())
    commit = commit_of(1, "a", "b")
    feed.publish(commit)
    first = feed.encoded(commit, WatchFilter("a"))
    assert feed.encoded(commit, WatchFilter("a")) is first
    response = run_service_pb2.WatchRunResponse.FromString(first)
    assert [event.run_finished.run_id for event in response.commits[0].events] == ["a"]
    assert feed.encoded(commit, WatchFilter("b")) != first
    assert feed.encoded(commit, WatchFilter("c")) == b""
    assert feed.encoded(commit, WatchFilter("", frozenset({"run_created"}))) == b""


def test_encoded_commits_put_together_are_one_message_with_all_of_them() -> None:
    data = b"".join(WatchFilter("a").encode(commit_of(number, "a", "b")) for number in (1, 2, 3))
    response = run_service_pb2.WatchRunResponse.FromString(data)
    assert [commit.log_sequence for commit in response.commits] == [1, 2, 3]


def test_details_are_left_out_where_they_are_not_wanted() -> None:
    accepted = events_pb2.ResultsAccepted(
        run_id="a", tasks=[0], verdicts=[common_pb2.VERDICT_FAILED], details=[b"long"]
    )
    commit = feed_commit(1, 1, 100, [events_pb2.Event(results_accepted=accepted)])
    bare = run_service_pb2.WatchRunResponse.FromString(WatchFilter("a", None, True).encode(commit))
    assert not bare.commits[0].events[0].results_accepted.details
    assert b"long" in WatchFilter("a").encode(commit)


def test_what_is_kept_encoded_is_bounded() -> None:
    feed = CommitFeed(0, Bell())
    long_name = "r" * 100_000
    for sequence in range(1, 201):
        feed.encoded(commit_of(sequence, long_name), WatchFilter(long_name))
    assert feed._encoded_bytes <= commit_feed.MAX_ENCODED_BYTES
    assert 10 < len(feed._encoded) < 200
