"""What `dtf resource-manager` refuses before it starts anything."""

from pathlib import Path

import pytest

from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli

pytestmark = pytest.mark.resource_manager

GIVEN = {"DTF_SERVER": "127.0.0.1:1", "DTF_NATS_URL": "nats://127.0.0.1:1", "DTF_RUN_TOKEN_FILE": "token"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty project with everything given."""
    (tmp_path / "dtf.toml").touch()
    monkeypatch.chdir(tmp_path)
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("DTF_SERVER", "no coordinator is named"),
        ("DTF_NATS_URL", "no broker is named"),
        ("DTF_RUN_TOKEN_FILE", "no token is given"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(
    absent: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(absent)
    assert run_cli(["resource-manager"]) == ExitCode.USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {said}"
    assert second.startswith("  ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--token-file", "absent"], "[Errno 2] No such file or directory: 'absent'"),
        (["--token-file", "dtf.toml", "--server", "nowhere"], "address 'nowhere' is not host:port"),
        (["--pool", "a b"], "a pool cannot be named 'a b': its workers are named after it"),
    ],
)
def test_bounds_and_names_that_cannot_be_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["resource-manager", *arguments]) == ExitCode.USAGE
    assert capsys.readouterr().err.splitlines()[0] == f"error: {said}"
