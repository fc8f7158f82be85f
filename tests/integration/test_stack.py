"""The embedded stack's life: joined, shared, kept up, repaired, and gone without a trace."""

import json
import os
import queue
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dtf.client.stack import (
    StackError,
    StackMembership,
    SupervisorConnection,
    find_project_dir,
    join_stack,
    read_stack,
)
from dtf.settings.model import RunSettings, Settings
from tests.processes import wait_until_gone

SUPERVISOR = (sys.executable, str(Path(__file__).with_name("fake_supervisor.py")))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "dtf.toml").touch()
    yield tmp_path
    assert wait_until_gone(tmp_path) == []


def join(project: Path, **options: Any) -> StackMembership:
    return join_stack(project, Settings(), supervisor=SUPERVISOR, **options)


def part(project: Path, name: str) -> psutil.Process:
    document = json.loads((project / ".dtf" / "stack.json").read_text())
    return psutil.Process(document["parts"][name])


def down(project: Path, *, now: bool) -> dict[str, Any] | None:
    connection = SupervisorConnection.open(project / ".dtf")
    assert connection is not None
    connection.send(op="down", now=now)
    answer = connection.receive(90.0)
    connection.close()
    return answer


def test_the_last_member_that_leaves_stops_the_stack(project: Path) -> None:
    first = join(project)
    second = join(project)
    assert first.is_started_here and not second.is_started_here
    assert first.addresses == second.addresses
    first.close()
    assert read_stack(project) == second.addresses
    supervisor = psutil.Process(second.addresses.supervisor_pid)
    second.close()
    assert psutil.wait_procs([supervisor], timeout=90)[1] == []
    assert read_stack(project) is None


def test_who_joins_a_stack_that_serves_is_not_told_how_it_started(project: Path) -> None:
    told: list[str] = []
    with join(project, on_progress=told.append):
        assert any(text.startswith("starting") for text in told)
        told.clear()
        with join(project, on_progress=told.append):
            assert told == []


def test_members_that_join_at_the_same_moment_share_one_stack(project: Path) -> None:
    memberships: queue.Queue[StackMembership] = queue.Queue()
    threads = [threading.Thread(target=lambda: memberships.put(join(project))) for _ in range(4)]
    for thread in threads:
        thread.start()
    joined = [memberships.get(timeout=60) for _ in threads]
    assert len({membership.addresses for membership in joined}) == 1
    assert sum(membership.is_started_here for membership in joined) == 1
    for membership in joined:
        membership.close()


def test_a_stack_can_be_started_again_at_once(project: Path) -> None:
    for _ in range(2):
        with join(project) as membership:
            assert membership.is_started_here


def test_secrets_are_for_their_owner_alone(project: Path) -> None:
    with join(project) as membership:
        state = project / ".dtf"
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        for path in (
            membership.addresses.token_file,
            membership.addresses.nats_credentials_file,
            state / "supervisor.json",
            state / "stack.json",
            state / "settings.json",
        ):
            assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        assert len(membership.addresses.token) >= 32


@pytest.mark.parametrize("secret", ["wrong", "", "sécret", "\udc80", None, 1])
def test_a_connection_without_the_secret_is_closed(project: Path, secret: object) -> None:
    with join(project):
        path = project / ".dtf" / "supervisor.json"
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "secret": secret}))
        connection = SupervisorConnection.open(project / ".dtf")
        assert connection is not None
        assert connection.receive(90.0) is None
        connection.close()
        assert "Traceback" not in (project / ".dtf" / "logs" / "supervisor.log").read_text()


def test_a_stack_that_is_kept_up_stays_until_it_is_told_to_stop(project: Path) -> None:
    join(project, keep_up=True).close()
    member = join(project)
    assert not member.is_started_here
    held = down(project, now=False)
    assert held == {"kind": "held", "members": 1}
    member.close()
    assert read_stack(project) is None


def test_down_now_tells_the_members_and_stops_at_once(project: Path) -> None:
    reasons: queue.Queue[str] = queue.Queue()
    member = join(project, on_lost=reasons.put)
    assert down(project, now=True) is None
    assert "stopped by `dtf down --now`" in reasons.get(timeout=90)
    member.close()


@pytest.mark.parametrize("name", ["nats-server", "coordinator", "trend-analyzer", "resource-manager"])
def test_a_part_that_is_killed_is_restarted_where_it_was(project: Path, name: str) -> None:
    notes: queue.Queue[str] = queue.Queue()
    with join(project, on_note=notes.put) as member:
        before = part(project, name)
        before.kill()
        assert notes.get(timeout=90) == f"{name} ended (killed by signal 9 (SIGKILL)); it is being restarted"
        assert notes.get(timeout=90) == f"{name} is back"
        assert part(project, name).pid != before.pid
        assert read_stack(project) == member.addresses


def test_a_part_that_refuses_to_start_is_quoted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PART_FAULT", "coordinator:fatal")
    with pytest.raises(StackError, match="coordinator: this part refuses to start") as caught:
        join(project)
    assert caught.value.advice[0] == "give it a reason to"


def test_a_part_that_keeps_dying_ends_the_stack_with_one_clear_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_PART_FAULT", "resource-manager:mortal")
    reasons: queue.Queue[str] = queue.Queue()
    member = join(project, on_lost=reasons.put)
    what, advice = reasons.get(timeout=60).split("\n")
    assert what == "resource-manager keeps dying: exit code 3"
    assert advice == f"its log is {project}/.dtf/logs/resource-manager.log"
    member.close()


def test_killing_the_supervisor_leaves_no_process(project: Path) -> None:
    reasons: queue.Queue[str] = queue.Queue()
    member = join(project, on_lost=reasons.put)
    os.kill(member.addresses.supervisor_pid, signal.SIGKILL)
    assert "the supervisor of this project's stack died" in reasons.get(timeout=90)
    assert wait_until_gone(project) == []
    member.close()
    with join(project) as again:
        assert again.is_started_here


def test_killing_a_member_cancels_its_runs_and_stops_the_stack(project: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from dtf.client.stack import join_stack;"
        "from dtf.settings.model import Settings;"
        f"m = join_stack(Path({str(project)!r}), Settings(), supervisor={SUPERVISOR!r});"
        "m.attach_run('kept'); m.attach_run('done'); m.detach_run('done');"
        "print('joined', flush=True); sys.stdin.read()"
    )
    with psutil.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, cwd="/") as member:
        assert member.stdout.readline() == b"joined\n"
        member.kill()
    assert wait_until_gone(project) == []
    assert (project / "cancelled.txt").read_text() == "kept\n"


def test_runs_of_a_killed_stack_are_cancelled_by_the_next(project: Path) -> None:
    member = join(project)
    member.attach_run("left")
    connection = SupervisorConnection.open(project / ".dtf")
    assert connection is not None
    connection.send(op="status")  # answered after the attachment was written down, on the same loop
    assert connection.receive(90.0) is not None
    connection.close()
    os.kill(member.addresses.supervisor_pid, signal.SIGKILL)
    member.close()
    assert wait_until_gone(project) == []
    with join(project):
        assert (project / "cancelled.txt").read_text() == "left\n"


def test_with_a_server_given_nothing_is_started(project: Path) -> None:
    settings = Settings(run=RunSettings(server="10.0.0.5:4100"))
    with join_stack(project, settings) as member:
        assert member.addresses.server == "10.0.0.5:4100"
    assert not (project / ".dtf").exists()


def test_the_project_is_where_its_marker_is(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_project_dir(inner) == tmp_path
