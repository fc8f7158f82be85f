"""The policies that `dtf scaling backtest` holds against each other: named ones, and files with a [pool] table."""

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.core.simulation.scaling.outcome import PoolShape
from dtf.core.simulation.scaling.policies import PEERS
from dtf.core.simulation.scaling.shipped import ShippedPolicy
from dtf.core.simulation.scaling.simulator import Controller
from dtf.resource_manager.process import Shadow, resolve_policy
from dtf.settings.loader import SettingsError, nearest, parse_settings
from dtf.settings.model import PoolSettings

DEFAULT = "default"
"""The policy of a pool for which nothing is set."""
NAMES = (DEFAULT, *PEERS)


def make_policy(
    name: str, shape: PoolShape, *, overrides: frozenset[str] = frozenset()
) -> tuple[Controller, PoolShape]:
    """A policy and its pool, by name or file; a controller serves one simulation. Raises CommandError.

    Bounds and slots that a file names hold for it alone, unless they are among `overrides`, fields of
    PoolShape that hold for every policy.
    """
    if name in PEERS:
        return PEERS[name](), shape
    if name == DEFAULT:
        return shipped(DEFAULT, PoolSettings(), shape), shape
    path = Path(name)
    if not path.is_file():
        raise CommandError(
            f"no policy {name!r}{nearest(name, NAMES)}",
            f"named ones are {', '.join(NAMES)}; others are TOML files with a [pool] table",
            exit_code=ExitCode.USAGE,
        )
    settings, said = _read(path)
    for field in ("min_workers", "max_workers", "slots"):
        if field in said and field not in overrides:
            shape = replace(shape, **{field: getattr(settings, field)})
    if shape.max_workers < max(1, shape.min_workers):
        raise CommandError(
            f"{name}: max_workers is {shape.max_workers}, less than min_workers {shape.min_workers}",
            "--min and --max set bounds for every policy",
            exit_code=ExitCode.USAGE,
        )
    return shipped(name, settings, shape), shape


def shipped(name: str, settings: PoolSettings, shape: PoolShape) -> ShippedPolicy:
    """A policy of ours from a pool's settings, with the bounds and slots of the backtest's pool."""
    bounded = replace(
        settings, min_workers=shape.min_workers, max_workers=shape.max_workers, slots=shape.slots
    )
    return ShippedPolicy(name, resolve_policy(bounded, processors=shape.max_workers))


def make_shadow(path: Path, pool: PoolSettings) -> Shadow:
    """The policy of a file as a candidate for `pool`, whose settings hold where the file says nothing."""
    settings, said = _read(path)
    own = {name: getattr(settings, name) for name in said - {"name", "provider"}}
    return Shadow(path.stem, resolve_policy(replace(pool, **own), os.cpu_count() or 1))


def _read(path: Path) -> tuple[PoolSettings, frozenset[str]]:
    """The [pool] table of a file, and which settings it names."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read: {error}", exit_code=ExitCode.USAGE) from error
    pool = document.get("pool")
    if not isinstance(pool, dict):
        raise CommandError(
            f"{path} has no [pool] table",
            "a policy is written as a pool in dtf.toml",
            exit_code=ExitCode.USAGE,
        )
    try:
        loaded = parse_settings(json.dumps({"pool": pool}, default=str), str(path))
    except SettingsError as error:
        raise CommandError(error.faults[0], *error.faults[1:], exit_code=ExitCode.USAGE) from error
    return loaded.settings.pool, frozenset(pool)
