"""Receivers that answer wrongly, and addresses that are none: each is told without the secrets in it."""

import asyncio

import pytest

from dtf.adapters.web_notifiers import SlackNotifier, WebhookNotifier
from dtf.ports.notifier import Notice, NotifierError


def notice() -> Notice:
    """A notice without findings."""
    return Notice(title="title", lines=("line",), findings=())


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:s3cret/", "http://127.0.0.1:1/s3cret x", "http://127.0.0.1:1/s3cret\u00e9", "s3cret"],
)
async def test_an_address_that_is_none_is_not_told(url: str) -> None:
    with pytest.raises(NotifierError) as failed:
        await SlackNotifier(url).send(notice())
    assert "s3cret" not in str(failed.value)
    assert not failed.value.is_retryable


async def test_a_token_that_is_none_is_not_told() -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotifierError) as failed:
            await WebhookNotifier(f"http://127.0.0.1:{port}/", "s3cret\nX: y").send(notice())
    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize(
    ("answer", "message", "after"),
    [
        (b"nonsense\r\n\r\n", "does not speak HTTP", 0.0),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "answered 302", 0.0),
        (b"HTTP/1.1 429 \x1b[2Jlater\r\nRetry-After: " + b"9" * 400 + b"\r\n\r\n", "429 .2Jlater", 3600.0),
    ],
)
async def test_a_receiver_that_answers_wrongly_is_told_in_a_line(
    answer: bytes, message: str, after: float
) -> None:
    asked = 0

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(receive, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotifierError, match=message) as failed:
            await WebhookNotifier(f"http://127.0.0.1:{port}/", "token").send(notice())
    assert (asked, failed.value.retry_after_seconds) == (1, after)
    assert str(failed.value).isprintable()
