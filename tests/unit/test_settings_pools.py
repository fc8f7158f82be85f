"""Several pools in the settings: what differs from [pool] and the providers' own tables."""

import json
from pathlib import Path

import pytest

from dtf.cli.config_command import setting_values
from dtf.cli.connection import without_workers
from dtf.settings.loader import LoadedSettings, SettingsError, dump_settings, load_settings, parse_settings

pytestmark = pytest.mark.resource_manager

TWO = """
[pool]
slots = 2
max_workers = 3

[kubernetes]
image = "plain"
kind = "job"

[pools.gpu]
provider = "kubernetes"
max_workers = 8
gpus = 1
labels = { gpu = "a100" }

[pools.gpu.kubernetes]
image = "cuda"

[pools.night]
"""


def load(directory: Path, toml: str, **flags: object) -> LoadedSettings:
    (directory / "dtf.toml").write_text(toml)
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(directory, environ={"DTF_POOL_BACKLOG_AIM_SECONDS": "7"}, flags=named)


def test_a_pool_has_what_its_table_says_and_the_rest_of_the_first(tmp_path: Path) -> None:
    settings = load(tmp_path, TWO).settings
    assert settings.pool_names == ["local", "gpu", "night"]
    gpu = settings.of_pool("gpu")
    assert (gpu.pool.name, gpu.pool.slots, gpu.pool.max_workers, gpu.pool.gpus) == ("gpu", 2, 8, 1)
    assert gpu.pool.labels == {"gpu": "a100"}
    assert gpu.pool.backlog_aim_seconds == 7
    assert (gpu.kubernetes.image, gpu.kubernetes.kind) == ("cuda", "job")
    assert settings.kubernetes.image == "plain"
    assert settings.of_pool("night").pool.max_workers == 3
    assert settings.of_pool("local") is settings


def test_a_flag_reaches_a_pool_and_a_providers_table_of_it(tmp_path: Path) -> None:
    settings = load(
        tmp_path, TWO, pools__gpu__max_workers="9", pools__gpu__kubernetes__image="other"
    ).settings
    assert settings.of_pool("gpu").pool.max_workers == 9
    assert settings.of_pool("gpu").kubernetes.image == "other"


def test_dumped_pools_load_as_they_were(tmp_path: Path) -> None:
    settings = load(tmp_path, TWO).settings
    assert parse_settings(dump_settings(settings), "dump").settings == settings


def test_config_shows_what_the_pools_set_and_where(tmp_path: Path) -> None:
    loaded = load(tmp_path, TWO)
    values = setting_values(loaded)
    assert values["pools.gpu.kubernetes.image"] == "cuda"
    assert json.loads(json.dumps(values["pools.gpu.labels"])) == {"gpu": "a100"}
    assert loaded.sources["pools.gpu.max_workers"] == "dtf.toml"


@pytest.mark.parametrize(
    ("toml", "fault"),
    [
        ("[pools.gpu]\nmax_worker = 1", "no setting pools.gpu.max_worker (did you mean max_workers?)"),
        ("[pools.gpu]\nname = 'x'", "no setting pools.gpu.name"),
        ("[pools.gpu.kubernetes]\nimages = 'x'", "no setting pools.gpu.kubernetes.images"),
        ("[pools.gpu]\nprovider = 'abacus'", "pools.gpu.provider: 'abacus' is none of process"),
        ("[pools.gpu]\nmin_workers = 4\nmax_workers = 2", "pools.gpu.max_workers = 2 must be at least"),
        ("[pools.local]\nslots = 2", "pools.local is the name of [pool] itself"),
        ('[pools."g p u"]\nslots = 2', "a pool is named with 1 to 64 letters"),
        ("[pools]\ngpu = 3", "pools.gpu must be a table"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(tmp_path: Path, toml: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load(tmp_path, toml)
    assert any(fault in line for line in refusal.value.faults), refusal.value.faults


def test_a_stack_started_to_read_with_has_no_workers_in_any_pool(tmp_path: Path) -> None:
    toml = (
        "[pool]\nmin_workers = 2\n[pools.gpu]\nmin_workers = 1\nstrategy = 'static'\nworkers = 3\nslots = 4\n"
    )
    settings = without_workers(load(tmp_path, toml).settings)
    for name in settings.pool_names:
        pool = settings.of_pool(name).pool
        assert (pool.min_workers, pool.strategy, pool.warm_workers) == (0, "target", 0)
    assert settings.of_pool("gpu").pool.slots == 4
