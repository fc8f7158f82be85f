"""The notice that a cloud gives of taking this machine away, read from the machine's own metadata.

| cloud | asked | given before the end |
|---|---|---|
| aws | spot/instance-action, with a session of IMDSv2 | 2 minutes |
| gcp | instance/preempted | 30 seconds |
| azure | scheduledevents: Preempt, Terminate | 30 seconds, or what the machine was given |

A machine that has no such metadata is asked in vain; that is said once, and asked on.
"""

import asyncio
import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from dtf.ports.clock import Clock

ASK_SECONDS = 2.0
"""Between questions: a notice of Google or Azure leaves 30 s."""
ANSWER_SECONDS = 2.0
_SESSION_SECONDS = 300
_NOT_FOUND = 404

_METADATA_URLS: Mapping[str, str] = {
    "aws": os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/"),
    "gcp": f"http://{os.environ.get('GCE_METADATA_HOST', 'metadata.google.internal')}",
    "azure": "http://169.254.169.254",
}
"""Where they are; the variables are those of the clouds' own libraries."""
_AZURE_ENDS = frozenset({"Preempt", "Terminate"})

_log = logging.getLogger(__name__)


class SpotNotices:
    """Asks one machine's metadata."""

    def __init__(self, cloud: str, clock: Clock, *, url: str = "") -> None:
        """`cloud`: aws, gcp or azure; `url`: of the metadata, if it is not the cloud's own."""
        self._ask: Callable[[], str] = {"aws": self._aws, "gcp": self._gcp, "azure": self._azure}[cloud]
        self._url = url or _METADATA_URLS[cloud]
        self._clock = clock

    async def wait(self) -> str:
        """Return when the cloud has announced that it takes this machine away: what it said."""
        has_complained = False
        while True:
            try:
                if notice := await asyncio.to_thread(self._ask):
                    return notice
            except (OSError, ValueError) as error:
                if not has_complained:
                    _log.warning("this machine's metadata does not answer, so no notice is heard: %s", error)
                    has_complained = True
            await self._clock.sleep(ASK_SECONDS)

    def _aws(self) -> str:
        session = self._read(
            "/latest/api/token",
            {"X-aws-ec2-metadata-token-ttl-seconds": str(_SESSION_SECONDS)},
            method="PUT",
        )
        said = self._read("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": session})
        if not said:
            return ""
        action = json.loads(said)
        return f"EC2 will {action['action']} this instance at {action['time']}"

    def _gcp(self) -> str:
        said = self._read("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
        return "Google Cloud preempts this instance" if said.strip() == "TRUE" else ""

    def _azure(self) -> str:
        said = self._read("/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
        for event in json.loads(said or "{}").get("Events", []):
            if event.get("EventType") in _AZURE_ENDS:
                when = event.get("NotBefore") or "any moment"
                return f"Azure ends this machine ({event['EventType']}) at {when}"
        return ""

    def _read(self, path: str, headers: Mapping[str, str], method: str = "GET") -> str:
        """The answer; empty where there is nothing of that name."""
        request = urllib.request.Request(f"{self._url}{path}", headers=dict(headers), method=method)
        try:
            # No proxy: the metadata are this machine's own.
            with _OPENER.open(request, timeout=ANSWER_SECONDS) as answer:
                text: bytes = answer.read()
                return text.decode()
        except urllib.error.HTTPError as error:
            with error:
                if error.code == _NOT_FOUND:
                    return ""
                raise


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
