"""`dtf grafana export` writes what Grafana is provisioned with."""

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import cli
from dtf.grafana.files import BOARDS, grafana_files

pytestmark = pytest.mark.trend_analyzer


def test_the_files_are_written_and_written_over(tmp_path: Path) -> None:
    for _ in range(2):
        result = CliRunner().invoke(cli, ["grafana", "export", str(tmp_path)])
        assert result.exit_code == 0, result.exception
    assert result.output.splitlines() == [str(tmp_path / name) for name in grafana_files()]
    for name, text in grafana_files().items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_another_data_source_is_used_everywhere(tmp_path: Path) -> None:
    assert (
        CliRunner().invoke(cli, ["grafana", "export", str(tmp_path), "--data-source", "ours"]).exit_code == 0
    )
    for name in BOARDS:
        text = (tmp_path / "dashboards" / f"{name}.json").read_text(encoding="utf-8")
        assert set(re.findall(r'"uid": "([^"]+)"', text)) == {"ours", f"dtf-{name}"}


def test_a_dashboard_names_no_other_source_and_every_panel_asks() -> None:
    for name in BOARDS:
        board = json.loads(grafana_files()[f"dashboards/{name}.json"])
        assert board["uid"] == f"dtf-{name}"
        assert board["panels"]
        assert all(len(panel["targets"]) == 1 for panel in board["panels"])


def test_without_the_extra_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.startswith("dtf.grafana.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk.builders", None)
    result = CliRunner().invoke(cli, ["grafana", "export", str(tmp_path)])
    assert isinstance(result.exception, CommandError)
    assert result.exception.exit_code == ExitCode.USAGE
    assert "pip install 'dtf[grafana]'" in " ".join(result.exception.advice)
    assert list(tmp_path.iterdir()) == []
