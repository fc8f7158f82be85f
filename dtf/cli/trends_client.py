"""How commands ask the trend analyzer: the one the settings name, that of the running stack, or one started for it."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.analysis_progress import AnalysisProgress
from dtf.cli.connection import any_client
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.client import Client
from dtf.rpc.errors import parse

CALL_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""How often it is looked how far a search is."""
STALLED_SECONDS = 60.0
"""How long a search may make no headway before a command gives up waiting for it."""

Answer = TypeVar("Answer")


class Analyzer:
    """The analyzer's service with what every call carries."""

    def __init__(self, client: Client) -> None:
        if not client.has_analyzer:
            raise CommandError(
                "it is not known where the trend analyzer listens",
                'set [analyzer] server = "host:port" (DTF_ANALYZER_SERVER)',
                exit_code=ExitCode.USAGE,
            )
        self.client = client
        self.stub = client.analysis
        self.call: dict[str, Any] = {"metadata": client.metadata, "timeout": CALL_SECONDS}

    async def settle(self) -> pb.GetCheckpointResponse:
        """Wait until what the store has and what was imported were searched for findings, as long as that goes on.

        A terminal is shown how far it is. Raises CommandError where nothing was searched for STALLED_SECONDS.
        """
        now = await self.stub.GetCheckpoint(pb.GetCheckpointRequest(), **self.call)
        if now.findings_sequence >= now.log_sequence and not now.is_importing:
            return now
        request = pb.GetCheckpointRequest(wait_for_findings=now.log_sequence, wait_for_imports=True)
        call = self.call | {"timeout": LOOK_SECONDS}
        total, seen, looks = now.waiting_point_count, _place(now), 0
        with AnalysisProgress(sys.stderr) as progress:
            advance = progress.stage(f"searching {total:,} points", total)
            while looks < STALLED_SECONDS / LOOK_SECONDS:
                try:
                    return await self.stub.GetCheckpoint(request, **call)
                except grpc.RpcError as error:
                    if parse(error).code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
                now = await self.stub.GetCheckpoint(pb.GetCheckpointRequest(), **self.call)
                looks = looks + 1 if _place(now) == seen else 0
                seen = _place(now)
                advance(max(0, total - now.waiting_point_count))
        left = now.waiting_point_count
        what = f"{left:,} points are left" if left else "what was searched is not saved yet"
        raise CommandError(
            f"the trend analyzer has not searched everything yet, and nothing for {STALLED_SECONDS:.0f} s: {what}",
            "its log (`.dtf/logs`) says what it waits for; it goes on from there while the stack runs",
            exit_code=ExitCode.UNAVAILABLE,
        )


def _place(now: pb.GetCheckpointResponse) -> tuple[int, int]:
    return now.findings_sequence, now.waiting_point_count


def ask_analyzer(invocation: Invocation, ask: Callable[[Analyzer], Awaitable[Answer]]) -> Answer:
    """What the analyzer answers. Raises CommandError."""

    async def call() -> Answer:
        async with any_client(invocation) as client:
            return await ask(Analyzer(client))

    return asyncio.run(call())
