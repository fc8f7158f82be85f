"""The `dtf` command: what every invocation has in common."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dtf.cli.errors import CommandError, explain
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import COMMANDS, cli, main, run_cli
from dtf.client.stack import StackError
from dtf.ports.event_log import LogUnavailable


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([name, "--help"]) == ExitCode.OK
    assert f"dtf {name}" in capsys.readouterr().out.split("Example:", 1)[1]


def test_help_lists_every_command_and_imports_no_grpc() -> None:
    script = (
        "import sys; from dtf.cli.main import run_cli; run_cli(['--help']);"
        "sys.exit(bool({'grpc', 'nats', 'google.protobuf', 'rich', 'duckdb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["doktor"]) == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "error: no command 'doktor'\n  did you mean `dtf doctor`? `dtf --help` lists them\n"
    )


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["config", "--jsn"]) == ExitCode.USAGE
    assert "error: No such option '--jsn'" in capsys.readouterr().err


def test_settings_faults_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dtf.toml").write_text("[pool]\nslot = 1")
    assert run_cli(["--project", str(tmp_path), "config"]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(
        "error: dtf.toml: no setting pool.slot (did you mean pool.slots?)\n"
    )


def test_config_shows_value_and_source_and_no_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dtf.toml").write_text('[nats]\nurl = "nats://user:secret@h:4222"')
    arguments = ["--project", str(tmp_path), "--set", "pool.slots=3", "config"]
    assert run_cli([*arguments, "--json"]) == ExitCode.OK
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["nats.url"] == {"value": "nats://user:***@h:4222", "source": "dtf.toml"}
    assert settings["pool.slots"] == {"value": 3, "source": "flag"}
    assert run_cli(arguments) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "nats://user:***@h:4222" in shown
    assert "secret@" not in shown


def test_commands_that_need_a_stack_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dtf.toml").touch()
    for arguments in (["workers"], ["cancel", "x"]):
        assert run_cli(["--project", str(tmp_path), *arguments]) == ExitCode.UNAVAILABLE
        assert "`dtf up` starts one" in capsys.readouterr().err
    assert run_cli(["--project", str(tmp_path), "status", "--json"]) == ExitCode.UNAVAILABLE
    assert json.loads(capsys.readouterr().out) == {"running": False}
    assert run_cli(["--project", str(tmp_path), "down", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"stopped": False, "was_running": False}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "--exec"], ExitCode.USAGE),
        (["run", "--exec", "--callable", "m:f"], ExitCode.USAGE),
        (["run", "--each", "/dev/null"], ExitCode.EMPTY),
        (["run", "--callable", "nonsense"], ExitCode.USAGE),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, arguments: list[str], code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dtf.toml").touch()
    assert run_cli(["--project", str(tmp_path), *arguments]) == code
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / ".dtf").exists()


def test_errors_below_become_a_line_and_advice() -> None:
    stack = explain(StackError("no", "do this"))
    assert stack is not None
    assert (stack.what, stack.advice, stack.exit_code) == ("no", ("do this",), ExitCode.UNAVAILABLE)
    grouped = explain(ExceptionGroup("several", [LogUnavailable("no broker")]))
    assert grouped is not None
    assert grouped.what == "no broker"
    assert explain(KeyError("ours")) is None
    assert explain(OSError(errno.ECHILD, "ours too")) is None
    full = explain(OSError(errno.ENOSPC, "No space left on device", "/project/.dtf/x"))
    assert full is not None
    assert full.what == "/project/.dtf/x: No space left on device"
    assert "make room" in full.advice[0]
    own = CommandError("x")
    assert explain(own) is own


def test_a_fault_of_dtf_itself_has_its_traceback_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> int:
        raise KeyError("ours")

    monkeypatch.setattr("dtf.cli.main.run_cli", broken)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == ExitCode.INTERNAL
    assert "KeyError: 'ours'" in capsys.readouterr().err


def test_the_table_and_the_commands_agree() -> None:
    assert cli.list_commands(None) == list(COMMANDS)  # type: ignore[arg-type]  # a CommandTable needs no context
