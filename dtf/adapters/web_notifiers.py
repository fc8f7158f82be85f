"""Notices by HTTP: a webhook of one's own, and Slack's incoming webhooks."""

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping

from google.protobuf.json_format import MessageToDict

from dtf.ports.notifier import Notice, NotifierError

TIMEOUT_SECONDS = 15.0
MOST_SLACK_LINES = 30
"""Slack cuts longer texts at 40,000 characters; nobody reads so many."""
MOST_PATIENCE_SECONDS = 3600.0
"""A receiver that asks for more is asked again after this."""
_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other: following one would hand the token to whoever it names."""

    def redirect_request(self, *_: object) -> None:
        """None: not followed."""


_OPENER = urllib.request.build_opener(_NoRedirect)


class WebhookNotifier:
    """POSTs {"title", "lines", "findings"} as JSON."""

    name = "webhook"

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def send(self, notice: Notice) -> None:
        """See the port."""
        findings = [MessageToDict(finding, preserving_proto_field_name=True) for finding in notice.findings]
        body = {"title": notice.title, "lines": list(notice.lines), "findings": findings}
        await asyncio.to_thread(_post, self._url, body, self._headers)


class SlackNotifier:
    """POSTs a text to an incoming webhook of Slack."""

    name = "slack"

    def __init__(self, url: str) -> None:
        self._url = url

    async def send(self, notice: Notice) -> None:
        """See the port."""
        shown = [f"• {_escaped(line)}" for line in notice.lines[:MOST_SLACK_LINES]]
        if len(notice.lines) > MOST_SLACK_LINES:
            shown.append(f"and {len(notice.lines) - MOST_SLACK_LINES} more: `dtf trends`")
        text = "\n".join([f"*{_escaped(notice.title)}*", *shown])
        await asyncio.to_thread(_post, self._url, {"text": text}, {})


def _escaped(text: str) -> str:
    """Slack's three control characters (api.slack.com, Formatting text for app surfaces)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post(url: str, body: Mapping[str, object], headers: Mapping[str, str]) -> None:
    """POST JSON. The address is not told in errors: Slack's is a secret."""
    if not url.startswith(("http://", "https://")):
        raise NotifierError("the address is not http:// or https://", is_retryable=False)
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "dtf", **headers},
        method="POST",
    )
    try:
        with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        with error:
            after = error.headers.get("Retry-After", "")
        raise NotifierError(
            f"the receiver answered {error.code} {''.join(filter(str.isprintable, str(error.reason)))[:200]}",
            is_retryable=error.code in _RETRYABLE,
            retry_after_seconds=min(MOST_PATIENCE_SECONDS, float(after)) if after.isdecimal() else 0.0,
        ) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise NotifierError(f"the receiver does not answer: {reason}", is_retryable=True) from None
    except http.client.InvalidURL:
        raise NotifierError("the address is none", is_retryable=False) from None
    except http.client.HTTPException as error:
        raise NotifierError(
            f"the receiver does not speak HTTP ({type(error).__name__})", is_retryable=True
        ) from None
    except ValueError:  # its text would show the token or the address
        raise NotifierError(
            "the address or the token holds a character that HTTP does not take", is_retryable=False
        ) from None
