"""Notices against real receivers on this machine: an HTTP server and a mail server."""

import asyncio
import json
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from dtf.adapters.mail_notifier import MailNotifier, MailServer
from dtf.adapters.memory_log import MemoryRecords
from dtf.adapters.web_notifiers import SlackNotifier, WebhookNotifier
from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.findings_book import FindingsBook
from dtf.ports.notifier import Notice, NotifierError
from dtf.settings.trends import NotifySettings
from dtf.trend_analyzer.notices import NoticeKeeper, make_notice
from tests.fakes import FakeClock

pytestmark = pytest.mark.trend_analyzer


class Receiver:
    """An HTTP server that answers as told and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        """Status and headers of the next answers; then 200."""
        self.bodies: list[Any] = []
        self.headers: list[Message] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                receiver.bodies.append(json.loads(self.rfile.read(length)))
                receiver.headers.append(self.headers)
                status, headers = receiver.answers.pop(0) if receiver.answers else (200, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An HTTP server."""
    made = Receiver()
    yield made
    made.close()


class Mailbox:
    """Remembers the mails handed in; refuses recipients it does not know."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        """Take a recipient."""
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        """Take a mail."""
        self.mails.append(envelope.content.decode())
        return "250 taken"


def finding(identity: str, at_ns: int, **rest: Any) -> pb.Finding:
    """A confirmed regression of 30 %."""
    values: dict[str, Any] = {
        "state": pb.FINDING_STATE_CONFIRMED,
        "impact": pb.FINDING_IMPACT_REGRESSION,
        "version": 1,
        **rest,
    }
    return pb.Finding(
        finding_id=identity,
        series=pb.FindingSeries(suite="s", case_name=f"case_{identity}", metric="duration_seconds", pool="p"),
        unit="s",
        kind=pb.FINDING_KIND_STEP,
        level_before=1.0,
        level_after=1.3,
        relative=0.3,
        relative_low=0.28,
        relative_high=0.32,
        confidence=0.9999,
        caused_unix_nanos=at_ns,
        **values,
    )


NOTICE = make_notice([finding("a1", 1), finding("b2", 1)])


async def test_a_webhook_gets_json_with_its_token(receiver: Receiver) -> None:
    await WebhookNotifier(receiver.url, "secret").send(NOTICE)
    (body,) = receiver.bodies
    assert body["title"] == "dtf: 2 became worse in s"
    assert [each["finding_id"] for each in body["findings"]] == ["a1", "b2"]
    assert receiver.headers[0]["Authorization"] == "Bearer secret"


async def test_slack_gets_a_text_whose_control_characters_are_escaped(receiver: Receiver) -> None:
    await SlackNotifier(receiver.url).send(Notice("a <b> & c", ["x > y"], []))
    assert receiver.bodies == [{"text": "*a &lt;b&gt; &amp; c*\n• x &gt; y"}]


@pytest.mark.parametrize(("status", "is_retryable"), [(429, True), (503, True), (404, False), (400, False)])
async def test_what_the_receiver_answers_says_whether_to_try_again(
    receiver: Receiver, status: int, is_retryable: bool
) -> None:
    receiver.answers = [(status, {"Retry-After": "7"})]
    with pytest.raises(NotifierError) as failed:
        await WebhookNotifier(receiver.url).send(NOTICE)
    assert (failed.value.is_retryable, failed.value.retry_after_seconds) == (is_retryable, 7.0)
    assert "hook" not in str(failed.value)


async def test_a_mail_is_handed_in_and_a_refused_recipient_is_named() -> None:
    mailbox = Mailbox()
    listener = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox), "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        server = MailServer.parse(f"127.0.0.1:{port}", "off")
        await MailNotifier(server, "dtf@example.org", ["ann@example.org"]).send(NOTICE)
        (mail,) = mailbox.mails
        assert "Subject: dtf: 2 became worse in s" in mail
        assert "To: ann@example.org" in mail
        with pytest.raises(NotifierError, match=r"nobody@example\.org") as failed:
            await MailNotifier(server, "dtf@example.org", ["nobody@example.org"]).send(NOTICE)
        assert not failed.value.is_retryable
    with pytest.raises(NotifierError) as away:
        await MailNotifier(server, "dtf@example.org", ["ann@example.org"]).send(NOTICE)
    assert away.value.is_retryable


class Told:
    """A receiver in memory that fails as often as told."""

    name = "told"

    def __init__(self) -> None:
        self.failures: list[NotifierError] = []
        self.notices: list[list[str]] = []
        self.lines: list[str] = []

    async def send(self, notice: Notice) -> None:
        """Fail, or remember."""
        if self.failures:
            raise self.failures.pop(0)
        self.notices.append([each.finding_id for each in notice.findings])
        self.lines += notice.lines


class World:
    """A stream, its fold and a keeper, on a clock that a test moves."""

    def __init__(self, clock: FakeClock, **settings: Any) -> None:
        self.clock, self.told = clock, Told()
        self.stream, self.book = MemoryRecords(), FindingsBook()
        self.settings = NotifySettings(linger_seconds=30.0, messages_per_hour=12.0, **settings)

    def keeper(self) -> NoticeKeeper:
        """One that begins now."""
        return NoticeKeeper(self.told, self.settings, self.book, self.stream, "default", self.clock)

    def find(self, identity: str, **rest: Any) -> None:
        """A finding comes in."""
        event = pb.AnalysisEvent(finding=finding(identity, rest.pop("at_ns", self.clock.now_ns()), **rest))
        self.book.apply(event, self.book.sequence + 1)

    async def advance(self, *seconds: float) -> None:
        """Let time pass, a step after another."""
        for each in seconds:
            await self.clock.advance(each)


async def test_what_comes_together_is_told_together_once_and_not_too_often(clock: FakeClock) -> None:
    world = World(clock)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.keeper().run())
        await world.advance(0)
        world.find("a1")
        world.find("b2")
        await world.advance(30)
        assert world.told.notices == [["a1", "b2"]]
        world.find("c3")
        await world.advance(60)
        assert len(world.told.notices) == 1
        await world.advance(240, 30)
        assert world.told.notices == [["a1", "b2"], ["c3"]]
        await world.advance(3600, 3600)
        assert len(world.told.notices) == 2
        running.cancel()
    events = [pb.AnalysisEvent.FromString(each.payload) for each in world.stream.records]
    assert [list(event.findings_notified.finding_ids) for event in events] == [["a1", "b2"], ["c3"]]
    restarted = FindingsBook()
    for sequence, identity in enumerate(("a1", "b2", "c3"), start=1):
        restarted.apply(pb.AnalysisEvent(finding=world.book.findings[identity].finding), sequence)
    for sequence, event in enumerate(events, start=10):
        restarted.apply(event, sequence)
    world.book = restarted
    assert world.keeper().news() == []


async def test_only_what_is_asked_for_is_told(clock: FakeClock) -> None:
    world = World(clock)
    day_ns = 24 * 3600 * 10**9
    world.find("old", at_ns=clock.now_ns() - day_ns - 1)
    world.find("maybe", state=pb.FINDING_STATE_PROVISIONAL)
    world.find("good", impact=pb.FINDING_IMPACT_IMPROVEMENT)
    world.find("gone", state=pb.FINDING_STATE_WENT_AWAY)
    world.find("bad")
    triaged = pb.FindingTriaged(finding_id="bad", verdict=pb.TRIAGE_VERDICT_MUTED)
    assert [known.finding.finding_id for known in world.keeper().news()] == ["bad"]
    world.book.apply(pb.AnalysisEvent(finding_triaged=triaged), 99)
    assert world.keeper().news() == []
    world.settings = NotifySettings(provisional=True, improvements=True)
    assert {known.finding.finding_id for known in world.keeper().news()} == {"maybe", "good"}


async def test_a_message_that_fails_is_sent_again_no_sooner_than_asked_and_given_up_where_it_cannot_go_out(
    clock: FakeClock,
) -> None:
    world = World(clock)
    world.told.failures = [NotifierError("busy", is_retryable=True, retry_after_seconds=20.0)]
    world.find("a1")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.keeper().run())
        await world.advance(0, 30, 19)
        assert world.told.notices == []
        await world.advance(2)
        assert world.told.notices == [["a1"]]
        world.told.failures = [NotifierError("no such address", is_retryable=False)]
        world.find("b2")
        await world.advance(300, 30, 60, 60)
        assert (world.told.notices, world.told.failures) == ([["a1"]], [])
        running.cancel()


async def test_cost_that_moved_from_where_nothing_is_to_be_told_is_told_as_such(clock: FakeClock) -> None:
    world = World(clock)
    place: dict[str, Any] = {"run_id": "r", "time_unix_nanos": 5}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.keeper().run())
        await world.advance(0)
        world.find("dear", absolute=0.3, absolute_low=0.28, absolute_high=0.32, **place)
        cheap = {"absolute": -0.3, "absolute_low": -0.32, "absolute_high": -0.28}
        world.find("cheap", impact=pb.FINDING_IMPACT_IMPROVEMENT, **cheap, **place)
        await world.advance(30)
        assert world.told.notices == [["dear"]]
        (line,) = world.told.lines
        assert "moved from case_cheap to case_dear" in line
        running.cancel()
