"""Settings: four sources in order, each fault named, all of them together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.settings.fields import setting_fields
from dtf.settings.loader import (
    SettingsError,
    dump_settings,
    load_settings,
    parse_settings,
    without_settings,
)
from dtf.settings.model import PoolSettings, Settings
from dtf.settings.rules import RULES, OneOf, Span


def load(directory: Path, toml: str = "", environ: dict[str, str] | None = None, **flags: object) -> Settings:
    (directory / "dtf.toml").write_text(toml)
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(directory, environ=environ or {}, flags=named).settings


def faults(
    directory: Path, toml: str = "", environ: dict[str, str] | None = None, **flags: object
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(directory, toml, environ, **flags)
    return list(caught.value.faults)


def test_without_sources_every_setting_is_its_default(tmp_path: Path) -> None:
    loaded = load_settings(tmp_path, environ={})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    toml = "[pool]\nmin_workers = 2\nmax_workers = 3\nslots = 4"
    environ = {"DTF_POOL_MAX_WORKERS": "5", "DTF_POOL_SLOTS": "6"}
    (tmp_path / "dtf.toml").write_text(toml)
    loaded = load_settings(tmp_path, environ=environ, flags={"pool.slots": 7, "pool.name": None})
    assert loaded.settings.pool == PoolSettings(min_workers=2, max_workers=5, slots=7)
    assert loaded.sources["pool.min_workers"] == "dtf.toml"
    assert loaded.sources["pool.max_workers"] == "DTF_POOL_MAX_WORKERS"
    assert loaded.sources["pool.slots"] == "flag"
    assert loaded.sources["pool.name"] == "default"


def test_pyproject_stands_in_for_dtf_toml(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.dtf.pool]\nslots = 3")
    loaded = load_settings(tmp_path, environ={})
    assert loaded.settings.pool.slots == 3
    assert loaded.sources["pool.slots"] == "pyproject.toml [tool.dtf]"
    (tmp_path / "dtf.toml").write_text("")
    assert load_settings(tmp_path, environ={}).settings.pool.slots == 1


def test_a_pyproject_without_our_table_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1")
    assert load_settings(tmp_path, environ={}).settings == Settings()


def test_dtf_server_is_run_server(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"DTF_SERVER": "h:1"}).run.server == "h:1"


def test_labels_are_tables_in_toml_and_pairs_in_the_environment(tmp_path: Path) -> None:
    assert load(tmp_path, '[worker.labels]\ngpu = "a100"').worker.labels == {"gpu": "a100"}
    environ = {"DTF_WORKER_LABELS": "gpu=a100, zone=eu"}
    assert load(tmp_path, environ=environ).worker.labels == {"gpu": "a100", "zone": "eu"}


def test_a_whole_number_will_do_for_a_number(tmp_path: Path) -> None:
    assert load(tmp_path, "[coordinator]\nlease_seconds = 20").coordinator.lease_seconds == 20.0


def test_every_fault_is_reported_at_once_with_the_nearest_known_name(tmp_path: Path) -> None:
    toml = '[poll]\nx = 1\n[pool]\nmax_worker = 2\nslots = "two"\n[nats]\nreplicas = 2'
    environ = {"DTF_POOL_MIN_WORKER": "1", "DTF_COORDINATOR_LEASE_SECONDS": "soon"}
    assert faults(tmp_path, toml, environ) == [
        "dtf.toml: no table [poll] (did you mean pool?)",
        "dtf.toml: no setting pool.max_worker (did you mean pool.max_workers?)",
        "dtf.toml: pool.slots: 'two' is not a whole number",
        "dtf.toml: nats.replicas: 2 is none of 1, 3, 5",
        "DTF_COORDINATOR_LEASE_SECONDS: coordinator.lease_seconds: 'soon' is not a number",
        "environment: DTF_POOL_MIN_WORKER names no setting (did you mean DTF_POOL_MIN_WORKERS?)",
    ]


@pytest.mark.parametrize(
    ("toml", "fault"),
    [
        ("[coordinator]\nheartbeat_seconds = 5\nlease_seconds = 10", "at least 3 times"),
        ("[pool]\nmin_workers = 3\nmax_workers = 2", "must be at least pool.min_workers = 3"),
        ('[coordinator]\ntls_key_file = "k"', "must be given together"),
        ("[pool]\nslots = true", "True is not a whole number"),
        ("pool = 3", "pool must be a table"),
        ("[pool", "cannot be read"),
        ("[worker.labels]\nsize = 3", "is not a text"),
        ("[coordinator]\nlease_seconds = nan", "is outside"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(tmp_path: Path, toml: str, fault: str) -> None:
    assert any(fault in line for line in faults(tmp_path, toml))


def test_other_variables_are_nobodys_settings(tmp_path: Path) -> None:
    environ = {"DTF_NATS_SERVER": "/x", "DTF_LIFELINE_FD": "3", "DTF_POOLSIDE": "y"}
    assert load(tmp_path, environ=environ) == Settings()


def test_an_unknown_flag_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, pool__slot=1) == ["flag: no setting pool.slot (did you mean pool.slots?)"]


def test_rules_name_settings_that_exist() -> None:
    assert set(RULES) <= set(setting_fields())


def test_defaults_meet_their_rules() -> None:
    for path, rule in RULES.items():
        assert rule.fault(setting_fields()[path].default) is None


@given(st.integers(min_value=1, max_value=1024), st.text(), st.dictionaries(st.text(min_size=1), st.text()))
def test_dumped_settings_load_as_they_were(slots: int, name: str, labels: dict[str, str]) -> None:
    settings = Settings(pool=PoolSettings(name=name, slots=slots, labels=labels))
    assert parse_settings(dump_settings(settings), "dump").settings == settings


def test_flags_override_dumped_settings() -> None:
    loaded = parse_settings(dump_settings(Settings()), "dump", flags={"pool.slots": "9"})
    assert loaded.settings.pool.slots == 9


def test_user_code_sees_no_settings() -> None:
    environ = {"PATH": "p", "DTF_SERVER": "h:1", "DTF_POOL_SLOTS": "2", "DTF_NATS_SERVER": "/x"}
    assert without_settings(environ) == {"PATH": "p", "DTF_NATS_SERVER": "/x"}


def test_rules_say_what_is_expected() -> None:
    assert Span(1, 2).fault(3) == "3 is outside 1 to 2"
    assert OneOf(("a", "b")).fault("c") == "'c' is none of a, b"
