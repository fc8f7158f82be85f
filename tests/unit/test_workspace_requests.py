"""What the coordinator takes as a workspace, and what travels in a run's template."""

import pytest

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.core.run.commands import CreateRun, InvalidRequest
from dtf.core.run.decide import decide
from dtf.core.run.state import State
from tests.unit.core_world import template

DIGEST = "0a" * 32
ARCHIVE = common_pb2.Blob(digest=DIGEST, size_bytes=1)


def create(workspace: common_pb2.Workspace) -> common_pb2.Workspace:
    """The workspace of the run that was created with it."""
    of_run = template()
    of_run.workspace.CopyFrom(workspace)
    request = run_service_pb2.CreateRunRequest(request_id="q", suite="s", templates=[of_run])
    (event,) = decide(State(), CreateRun("r", request), 1)
    return event.run_created.templates[0].workspace


@pytest.mark.parametrize(
    "workspace",
    [
        common_pb2.Workspace(
            root="/home/ada", archive=ARCHIVE, digest=DIGEST, setup="make", setup_timeout_seconds=9
        ),
        common_pb2.Workspace(root="/home/ada", path="/srv/app"),
    ],
)
def test_an_archive_or_a_path_is_taken_as_it_is(workspace: common_pb2.Workspace) -> None:
    assert create(workspace) == workspace


@pytest.mark.parametrize(
    ("workspace", "field"),
    [
        (common_pb2.Workspace(root="/a"), "workspace"),
        (common_pb2.Workspace(root="/a", path="/b", archive=ARCHIVE, digest=DIGEST), "workspace"),
        (common_pb2.Workspace(root="a", path="/b"), "workspace.root"),
        (common_pb2.Workspace(root="/a", path="../b"), "workspace.path"),
        (common_pb2.Workspace(root="/a", archive=ARCHIVE, digest="../../etc"), "workspace.digest"),
        (
            common_pb2.Workspace(root="/a", archive=common_pb2.Blob(digest="x"), digest=DIGEST),
            "workspace.archive.digest",
        ),
        (
            common_pb2.Workspace(root="/a", path="/b", setup_timeout_seconds=-1),
            "workspace.setup_timeout_seconds",
        ),
    ],
)
def test_a_workspace_that_says_too_little_too_much_or_no_path_is_refused(
    workspace: common_pb2.Workspace, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create(workspace)
    assert [violation.field for violation in caught.value.violations] == [f"templates[0].{field}"]
