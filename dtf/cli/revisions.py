"""Revisions as people name them: what git calls `main` or `HEAD~3` is a hash in the history of a series."""

import re
import subprocess
from pathlib import Path

import grpc

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.errors import CommandError
from dtf.cli.trends_client import Analyzer
from dtf.rpc.errors import describe, parse

TIMEOUT_SECONDS = 10.0
_HASH = re.compile(r"[0-9a-f]{4,64}")


async def compare_revisions(
    analyzer: Analyzer, request: pb.CompareRevisionsRequest, directory: Path
) -> pb.CompareRevisionsResponse:
    """The comparison, of what git in `directory` understands by the names; else of revisions that are called so."""
    named = pb.CompareRevisionsRequest()
    named.CopyFrom(request)
    named.base, named.head = (commit_of(each, directory) for each in (request.base, request.head))
    if named == request:
        return await analyzer.stub.CompareRevisions(request, **analyzer.call)
    try:
        return await analyzer.stub.CompareRevisions(named, **analyzer.call)
    except grpc.RpcError as error:
        if parse(error).code is not grpc.StatusCode.NOT_FOUND:
            raise
        unknown = describe(error)
    try:
        return await analyzer.stub.CompareRevisions(request, **analyzer.call)
    except grpc.RpcError as error:
        if parse(error).code is not grpc.StatusCode.NOT_FOUND:
            raise
        pairs = ((request.base, named.base), (request.head, named.head))
        meant = [f"{asked!r} is {found[:12]}" for asked, found in pairs if asked != found]
        raise CommandError(
            unknown, f"to git {' and '.join(meant)}; a revision is known once its run has ended"
        ) from None


def commit_of(name: str, directory: Path) -> str:
    """The hash of the commit that git calls `name`; `name` itself where it is a hash, or git knows no such commit."""
    if not name or _HASH.fullmatch(name) or name.startswith("-"):
        return name
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return name
    return found.stdout.strip() if found.returncode == 0 else name
