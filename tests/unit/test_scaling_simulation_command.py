"""`dtf scaling backtest`: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dtf.cli.invocation import make_invocation
from dtf.cli.main import run_cli
from dtf.cli.scaling_backtest_command import command

pytestmark = pytest.mark.resource_manager

STREAM = Path(__file__).parent.parent / "streams" / "lost_worker" / "events.dtfstream"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.csv"
    path.write_text("submit_seconds,duration_seconds\n" + "".join(f"{at},20\n" for at in range(0, 600, 5)))
    return path


def _backtest(directory: Path, *arguments: str | Path, fails: bool = False) -> Result:
    invocation = make_invocation(directory, None, {})
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], obj=invocation)
    assert (result.exit_code != 0) == fails, result.output + str(result.exception)
    return result


def test_json_is_exactly_what_is_promised(tmp_path: Path, trace: Path) -> None:
    names = ["default", "hpa", "keda", "dask", "ray"]
    options = [option for name in names for option in ("--policy", name)]
    document = json.loads(_backtest(tmp_path, "--trace", trace, *options, "--json").stdout)
    assert list(document) == ["policies"]
    assert [policy["policy"] for policy in document["policies"]] == names
    for policy in document["policies"]:
        assert list(policy) == [
            "policy",
            "makespan_seconds",
            "wait_seconds",
            "worker_seconds",
            "cost",
            "actions",
            "flaps",
            "busy_kills",
        ]
        assert list(policy["wait_seconds"]) == ["p50", "p95", "p99"]
        assert policy["makespan_seconds"] >= 615
        assert policy["worker_seconds"] >= 120 * 20


def test_without_a_policy_every_named_one_is_replayed(tmp_path: Path, trace: Path) -> None:
    document = json.loads(_backtest(tmp_path, "--trace", trace, "--json").stdout)
    assert [policy["policy"] for policy in document["policies"]] == ["default", "hpa", "keda", "dask", "ray"]


def test_the_table_shows_costs_where_there_is_a_price_and_the_pool_over_time(
    tmp_path: Path, trace: Path
) -> None:
    lines = _backtest(tmp_path, "--trace", trace, "--price", "3600", "--policy", "ray").stdout.splitlines()
    head, row = lines[0].split(), lines[1].replace(" s ", "s ").split()
    assert head[0] == "policy" and row[0] == "ray"
    assert float(row[head.index("cost") - 1].replace(",", "")) > 2400
    assert any(line.startswith("ray │") and "█" in line for line in lines)
    assert "cost" not in _backtest(tmp_path, "--trace", trace, "--policy", "ray").stdout


def test_a_policy_file_is_a_pool_table_and_its_bounds_hold_for_it_alone(tmp_path: Path, trace: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[pool]\nmax_workers = 2\n")
    options = ("--trace", trace, "--policy", mine, "--policy", "dask", "--startup", "0", "--json")
    small, dask = json.loads(_backtest(tmp_path, *options).stdout)["policies"]
    assert small["policy"] == str(mine)
    # 2400 s of work on two workers
    assert small["makespan_seconds"] >= 1200 > dask["makespan_seconds"]
    wide = json.loads(_backtest(tmp_path, *options, "--max", "50").stdout)["policies"][0]
    assert wide["makespan_seconds"] < 1200


def test_the_demand_of_a_recorded_log_is_replayed(tmp_path: Path) -> None:
    document = json.loads(
        _backtest(tmp_path, "--stream", STREAM, "--policy", "default", "--startup", "1", "--json").stdout
    )
    assert document["policies"][0]["makespan_seconds"] > 1
    text = _backtest(tmp_path, "--stream", STREAM, "--policy", "ray", "--startup", "1").stdout
    assert any(line.startswith("observed") for line in text.splitlines())


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_a_plot_is_written_without_anything_from_elsewhere(tmp_path: Path, trace: Path, suffix: str) -> None:
    plot = tmp_path / f"out.{suffix}"
    _backtest(tmp_path, "--trace", trace, "--policy", "ray", "--policy", "hpa", "--plot", plot)
    text = plot.read_text()
    assert text.count("<polyline") == 4
    assert ">ray<" in text and ">hpa<" in text
    assert "<script" not in text and "src=" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs one source of demand"),
        (["--trace", "jobs.csv", "--stream", str(STREAM)], "needs one source of demand"),
        (["--trace", "jobs.csv", "--policy", "kedda"], "no policy 'kedda' (did you mean keda?)"),
        (["--trace", "jobs.csv", "--min", "4", "--max", "2"], "--min 4 is more than --max 2"),
        (["--trace", "jobs.csv", "--plot", "out.gif"], "expected a name that ends in .svg, .html or .png"),
        (["--trace", "bad.csv"], "bad.csv line 2: duration_seconds is nan"),
        (["--trace", "wide.csv", "--cpus", "4"], "a task needs 8 CPUs, a worker has 4"),
        (["--trace", "binary.csv"], "binary.csv is not text"),
        (["--trace", "jobs.csv", "--policy", "empty.toml"], "empty.toml has no [pool] table"),
        (["--trace", "jobs.csv", "--policy", "wrong.toml"], "no setting pool.max_worker (did you mean"),
        (["--stream", "nothing.dtfstream"], "nothing.dtfstream does not exist"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(
    tmp_path: Path,
    trace: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("0,1\n1,nan\n")
    (tmp_path / "wide.csv").write_text("0,1,8\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "wrong.toml").write_text("[pool]\nmax_worker = 3\n")
    assert run_cli(["scaling", "backtest", *arguments]) == 4
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("error: ") and said in first


def test_cpus_that_do_not_count_and_an_order_that_was_mended_are_said(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("5,1,2\n0,1,1\n")
    said = _backtest(tmp_path, "--trace", path, "--policy", "ray").stderr
    assert "the trace's CPUs are not counted" in said
    assert "is not in the order of submission" in said
