"""What git calls a revision is looked up before the analyzer is asked for it."""

import asyncio
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.cli.errors import CommandError
from dtf.cli.revisions import commit_of, compare_revisions
from dtf.cli.trends_client import Analyzer


class _Stub:
    """Knows some revisions, as the analyzer does."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.asked: list[tuple[str, str]] = []

    async def CompareRevisions(self, request: pb.CompareRevisionsRequest) -> pb.CompareRevisionsResponse:
        self.asked.append((request.base, request.head))
        if request.base not in self.known or request.head not in self.known:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, empty, empty, "no revision that is known")
        return pb.CompareRevisionsResponse(base=request.base, head=request.head)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a commit on the branch `work`."""
    environment = os.environ | {
        f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    for command in (["init", "-q", "-b", "work"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=environment, check=True)
    return tmp_path


def _compare(stub: _Stub, base: str, head: str, directory: Path) -> pb.CompareRevisionsResponse:
    analyzer = cast(Analyzer, SimpleNamespace(stub=stub, call=dict[str, Any]()))
    request = pb.CompareRevisionsRequest(base=base, head=head)
    return asyncio.run(compare_revisions(analyzer, request, directory))


def test_a_branch_and_head_are_the_commit_that_they_name(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head = commit_of("HEAD", project)
    assert len(head) == 40
    assert commit_of("work", project) == head
    assert [commit_of(each, project) for each in ("", "4f2a91c", "no-such", "--version", "a b", "x\0y")] == [
        "",
        "4f2a91c",
        "no-such",
        "--version",
        "a b",
        "x\0y",
    ]
    assert commit_of("HEAD", tmp_path_factory.mktemp("elsewhere")) == "HEAD"


def test_what_git_means_is_compared_else_what_is_called_so(project: Path) -> None:
    commit = commit_of("HEAD", project)
    assert _compare(_Stub(commit), "work", "HEAD", project).head == commit
    stub = _Stub("work")  # history imported under the names of branches
    assert _compare(stub, "work", "work", project).base == "work"
    assert stub.asked == [(commit, commit), ("work", "work")]
    with pytest.raises(CommandError, match="no revision that is known") as told:
        _compare(_Stub(), "work", "4f2a91c", project)
    assert told.value.advice == (
        f"to git 'work' is {commit[:12]}; a revision is known once its run has ended",
    )
