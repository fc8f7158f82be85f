"""Settings of a policy that cannot be read are refused with the others, before anything starts."""

from pathlib import Path

import pytest

from dtf.core.scaling.choices import Strategy
from dtf.resource_manager.process import resolve_policy
from dtf.settings.loader import SettingsError, load_settings

pytestmark = pytest.mark.resource_manager


def test_every_field_of_a_policy_comes_from_the_settings(tmp_path: Path) -> None:
    (tmp_path / "dtf.toml").write_text(
        '[pool]\nstrategy = "stepwise"\nsteps = { "queue >= 2" = "+3" }\nwarm_workers = 2\ntimezone = "Europe/Berlin"\n'
        'scale_in_window_seconds = 300.0\nprice_per_hour = 1.5\n[pool.schedule]\n"mon-fri" = "1..9"\n'
    )
    policy = resolve_policy(load_settings(tmp_path, environ={}).settings.pool, 4)
    assert (policy.strategy, policy.steps, policy.warm_workers) == (
        Strategy.STEPWISE,
        {"queue >= 2": "+3"},
        2,
    )
    assert (policy.scale_in_window_seconds, policy.price_per_hour) == (300.0, 1.5)
    assert (policy.schedule, policy.timezone) == ({"mon-fri": "1..9"}, "Europe/Berlin")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('steps = { "lunch > 1" = "+1" }', "the step"),
        ('weights = { disk = "1" }', "the weight disk"),
        ('schedule = { noon = "1" }', "noon"),
        ('schedule = { mon = "1" }\ntimezone = "Mars"', "no time zone"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "dtf.toml").write_text(f"[pool]\n{written}\n")
    with pytest.raises(SettingsError, match=said):
        load_settings(tmp_path, environ={})
