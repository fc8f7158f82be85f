"""How commands ask the trend analyzer: the one the settings name, that of the running stack, or one started for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.connection import any_client
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.client import Client
from dtf.rpc.errors import describe, parse

CALL_SECONDS = 60.0
SEARCH_SECONDS = 60.0
"""How long the search for findings may be behind the store before an answer is given without its end."""

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
        """Wait until what the store has and what was imported were searched for findings."""
        now = await self.stub.GetCheckpoint(pb.GetCheckpointRequest(), **self.call)
        if now.findings_sequence >= now.log_sequence and not now.is_importing:
            return now
        request = pb.GetCheckpointRequest(wait_for_findings=now.log_sequence, wait_for_imports=True)
        try:
            return await self.stub.GetCheckpoint(request, **(self.call | {"timeout": SEARCH_SECONDS}))
        except grpc.RpcError as error:
            if parse(error).code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            raise CommandError(
                f"the trend analyzer has not searched everything yet: {describe(error)}",
                "it goes on from there while the stack runs (`dtf up` keeps it running)",
                exit_code=ExitCode.UNAVAILABLE,
            ) from None


def ask_analyzer(invocation: Invocation, ask: Callable[[Analyzer], Awaitable[Answer]]) -> Answer:
    """What the analyzer answers. Raises CommandError."""

    async def call() -> Answer:
        async with any_client(invocation) as client:
            return await ask(Analyzer(client))

    return asyncio.run(call())
