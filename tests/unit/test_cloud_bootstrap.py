"""What a machine of a cloud runs as it boots, run by a shell, and what its console says then."""

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from dtf.adapters.cloud_bootstrap import Boot, boot_script, outcome_in
from dtf.adapters.worker_command import worker_command
from dtf.ports.capacity import LaunchRequest
from tests.booted_machine import Machine

REQUEST = LaunchRequest("local-1", "local", labels={"disk": "fast"})
UP_THEN_OBEY = 'trap \'echo left > "$OUT"; exit 0\' TERM; echo up > "$PIPE"; while :; do sleep 0.05; done'


def run(
    machine: Machine, program: str, *, setup: str = "", environment: Mapping[str, str] | None = None
) -> int:
    """Run a program as a worker, to its end; the exit code."""
    script = boot_script(Boot("aws", setup), REQUEST, ["/bin/sh", "-c", program], environment or {})
    with machine.boot(script) as process:
        return process.wait(30)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that has not booted."""
    return Machine(tmp_path)


def test_a_worker_is_told_its_launch_its_token_and_whom_to_ask_for_notices(machine: Machine) -> None:
    told = 'echo "$DTF_JOIN_TOKEN $DTF_WORKER_LAUNCH_ID $DTF_WORKER_SPOT_NOTICES" > "$OUT"'
    assert run(machine, told, environment={"DTF_JOIN_TOKEN": "it's 'quoted' $HOME"}) == 0
    assert machine.out.read_text() == "it's 'quoted' $HOME local-1 aws\n"


def test_the_machine_shuts_down_when_its_worker_has_left(machine: Machine) -> None:
    run(machine, "exit 0")
    assert (machine.directory / "shutdown").read_text() == "-h now\n"
    outcome = outcome_in(machine.console.read_text(), "local-1")
    assert outcome is not None
    assert (outcome.reason, outcome.is_clean) == ("exited with code 0", True)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("echo 'error: no coordinator' >&2; exit 3", "exited with code 3 (error: no coordinator)"),
        ("kill -9 $$", "was killed by signal 9"),
    ],
)
def test_the_console_says_how_a_worker_failed(machine: Machine, program: str, reason: str) -> None:
    run(machine, program)
    outcome = outcome_in(machine.console.read_text(), "local-1")
    assert outcome is not None
    assert (outcome.reason, outcome.is_clean) == (reason, False)


def test_a_worker_of_a_machine_that_shuts_down_is_told_and_waited_for(machine: Machine) -> None:
    with machine.boot(boot_script(Boot("aws"), REQUEST, ["/bin/sh", "-c", UP_THEN_OBEY], {})) as process:
        assert machine.pipe.read_text() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert machine.out.read_text() == "left\n"


def test_what_setup_sets_holds_for_the_worker(machine: Machine) -> None:
    run(machine, 'echo "$GREETING" > "$OUT"', setup="export GREETING=hello")
    assert machine.out.read_text() == "hello\n"


def test_a_machine_that_cannot_be_set_up_says_so_and_costs_nothing_more(machine: Machine) -> None:
    run(machine, 'echo ran > "$OUT"', setup="echo 'error: no such package' >&2; false")
    assert not machine.out.exists()
    outcome = outcome_in(machine.console.read_text(), "local-1")
    assert outcome is not None
    assert outcome.reason == "exited with code 1 (error: [setup] ended with code 1)"
    assert "error: no such package" in machine.console.read_text()
    assert (machine.directory / "shutdown").exists()


def test_who_is_no_root_on_the_machine_cannot_read_the_token(machine: Machine) -> None:
    run(machine, "exit 0", environment={"DTF_JOIN_TOKEN": "secret"})
    assert (machine.directory / "run").stat().st_mode & 0o077 == 0
    assert (machine.directory / "run" / "worker.sh").stat().st_mode & 0o077 == 0


def test_another_launch_on_the_same_console_is_not_ours() -> None:
    assert outcome_in("dtf-outcome local-10 0 \n", "local-1") is None
    assert outcome_in("[ 12.3] cloud-init: dtf-outcome local-1 0 \r\n", "local-1") is not None


def test_a_worker_can_run_as_another_and_is_itself_what_is_signalled() -> None:
    script = boot_script(Boot("aws", user="ubuntu"), REQUEST, worker_command(["dtf"])(REQUEST), {})
    assert "\nsetpriv --reuid=ubuntu --regid=ubuntu --init-groups -- dtf worker --pool local" in script
    assert "--label disk=fast" in script
