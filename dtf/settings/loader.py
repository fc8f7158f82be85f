"""Settings from their four sources: defaults < dtf.toml < DTF_* < flags.

`dtf.toml` has one table a class of model.py; `[tool.dtf]` of pyproject.toml stands in for it where
there is no dtf.toml. The variable of `nats.url` is DTF_NATS_URL; DTF_SERVER and DTF_TOKEN_FILE
stand for `run.server` and `run.token_file`, which people set most. Pools beyond the first, [pools.NAME],
have no variables: their names are the user's.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dtf.settings.fields import (
    POOLS,
    BadValue,
    SettingField,
    Value,
    convert,
    parse,
    pool_setting,
    provider_tables,
    setting_fields,
    table_classes,
)
from dtf.settings.model import PoolSettings, Settings
from dtf.settings.project import find_project_dir
from dtf.settings.rules import RULES, joint_faults

DEFAULT = "default"
SHORT_VARIABLES = {"DTF_SERVER": "run.server", "DTF_TOKEN_FILE": "run.token_file"}
OTHER_VARIABLES = frozenset({"DTF_NATS_SERVER"})
"""Variables that begin like a table's and are no setting: DTF_NATS_SERVER names the nats-server binary."""


class SettingsError(ValueError):
    """Settings that cannot be used; `faults` has one line for each thing to mend."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings and where each came from."""

    settings: Settings
    sources: Mapping[str, str]
    """Source of each setting by path: "default", a file, a variable or a flag."""
    project_dir: Path


def load_settings(
    project_dir: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> LoadedSettings:
    """The settings of a project. Raises SettingsError with every fault there is.

    `flags` maps paths ("pool.max_workers") to values; None among them stands for a flag not given.
    """
    directory = project_dir or find_project_dir()
    gathering = _Gathering()
    gathering.take_file(directory)
    gathering.take_environment(os.environ if environ is None else environ)
    gathering.take_flags(flags or {})
    return gathering.finish(directory)


def dump_settings(settings: Settings) -> str:
    """The settings as JSON, for `load_settings_file`."""
    return json.dumps(asdict(settings), indent=1)


def load_settings_file(path: Path, *, flags: Mapping[str, object] | None = None) -> LoadedSettings:
    """Settings that `dump_settings` wrote, taken whole, with flags on top. Raises SettingsError."""
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingsError([f"{path} cannot be read: {error}"]) from error
    return parse_settings(text, str(path), flags=flags)


def parse_settings(text: str, source: str, *, flags: Mapping[str, object] | None = None) -> LoadedSettings:
    """Settings in JSON, as `dump_settings` gives them, with flags on top. Raises SettingsError."""
    gathering = _Gathering()
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SettingsError([f"{source} is not JSON: {error}"]) from error
    gathering.take_tables(document, source)
    gathering.take_flags(flags or {})
    return gathering.finish(find_project_dir())


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without the variables that are settings: what user code should see of it."""
    variables = {setting.variable for setting in setting_fields().values()} | set(SHORT_VARIABLES)
    return {name: value for name, value in environ.items() if name not in variables}


def nearest(name: str, known: Sequence[str]) -> str:
    """ " (did you mean …?)" for the known name nearest to `name`, or nothing."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {matches[0]}?)" if matches else ""


class _Gathering:
    """Values found so far, by path, and the faults met on the way."""

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}
        self._pools: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, str] = {}
        self._faults: list[str] = []

    def take_file(self, directory: Path) -> None:
        for name, keys in (("dtf.toml", ()), ("pyproject.toml", ("tool", "dtf"))):
            path = directory / name
            if not path.is_file():
                continue
            tables = self._read_toml(path, keys)
            if tables is not None:
                self.take_tables(tables, name if not keys else f"{name} [tool.dtf]")
                return

    def _read_toml(self, path: Path, keys: tuple[str, ...]) -> Any:
        try:
            document: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self._faults.append(f"{path} cannot be read: {error}")
            return {}
        for key in keys:
            document = document.get(key) if isinstance(document, dict) else None
        return document

    def take_tables(self, tables: object, source: str) -> None:
        if not isinstance(tables, dict):
            self._faults.append(f"{source}: expected tables, as [pool]")
            return
        for table, content in tables.items():
            if table == POOLS and isinstance(content, dict):
                self._take_pools(content, source)
            elif table not in table_classes():
                self._faults.append(f"{source}: no table [{table}]{nearest(table, list(table_classes()))}")
            elif not isinstance(content, dict):
                self._faults.append(f"{source}: {table} must be a table, as [{table}]")
            else:
                self._take_table(table, content, source)

    def _take_table(self, table: str, content: Mapping[str, object], source: str) -> None:
        for name, value in content.items():
            setting = self._known(f"{table}.{name}", source)
            if setting is not None:
                self._take(setting, value, source)

    def _take_pools(self, pools: Mapping[str, object], source: str) -> None:
        for pool, content in pools.items():
            if not isinstance(content, dict):
                self._faults.append(f"{source}: {POOLS}.{pool} must be a table, as [{POOLS}.{pool}]")
                continue
            self._pools.setdefault(pool, {})
            for name, value in content.items():
                if name in provider_tables() and isinstance(value, dict):
                    for key, item in value.items():
                        self._take_of_pool(f"{POOLS}.{pool}.{name}.{key}", item, source)
                else:
                    self._take_of_pool(f"{POOLS}.{pool}.{name}", value, source)

    def _take_of_pool(self, path: str, value: object, source: str) -> None:
        """A setting of one of [pools.NAME]."""
        found = pool_setting(path)
        if found is None:
            name = path.rpartition(".")[2]
            known = [*provider_tables(), *(each.name for each in fields(PoolSettings) if each.name != "name")]
            self._faults.append(f"{source}: no setting {path}{nearest(name, known)}")
            return
        pool, setting = found
        converted = self._converted(setting, path, value, source)
        if converted is not None:
            own = self._pools.setdefault(pool, {})
            if setting.table != "pool":
                own = own.setdefault(setting.table, {})
            own[setting.name] = converted
            self._sources[path] = source

    def take_environment(self, environ: Mapping[str, str]) -> None:
        by_variable = {setting.variable: setting for setting in setting_fields().values()}
        prefixes = tuple(f"DTF_{table.upper()}_" for table in table_classes())
        for variable in sorted(environ):
            setting = by_variable.get(variable)
            if setting is None and variable in SHORT_VARIABLES:
                setting = setting_fields()[SHORT_VARIABLES[variable]]
            if setting is not None:
                self._take(setting, environ[variable], variable)
            elif variable.startswith(prefixes) and variable not in OTHER_VARIABLES:
                hint = nearest(variable, list(by_variable))
                self._faults.append(f"environment: {variable} names no setting{hint}")

    def take_flags(self, flags: Mapping[str, object]) -> None:
        for path, value in flags.items():
            if path.startswith(f"{POOLS}.") and value is not None:
                self._take_of_pool(path, value, "flag")
                continue
            setting = self._known(path, "flag") if value is not None else None
            if setting is not None:
                self._take(setting, value, "flag")

    def _known(self, path: str, source: str) -> SettingField | None:
        setting = setting_fields().get(path)
        if setting is None:
            self._faults.append(f"{source}: no setting {path}{nearest(path, list(setting_fields()))}")
        return setting

    def _take(self, setting: SettingField, value: object, source: str) -> None:
        converted = self._converted(setting, setting.path, value, source)
        if converted is not None:
            self._values[setting.path] = converted
            self._sources[setting.path] = source

    def _converted(self, setting: SettingField, path: str, value: object, source: str) -> Value | None:
        """The value as the setting's type; None, and a fault more, if it cannot be used."""
        try:
            is_text = isinstance(value, str) and (source == "flag" or source.startswith("DTF_"))
            converted = parse(setting, str(value)) if is_text else convert(setting, value)
        except BadValue as error:
            self._faults.append(f"{source}: {path}: {error}")
            return None
        rule = RULES.get(setting.path)
        fault = rule.fault(converted) if rule else None
        if fault:
            self._faults.append(f"{source}: {path}: {fault}")
            return None
        return converted

    def finish(self, directory: Path) -> LoadedSettings:
        settings = Settings(**{name: self._table(name) for name in table_classes()}, pools=self._pools)
        self._faults += joint_faults(settings)
        if self._faults:
            raise SettingsError(self._faults)
        sources = {path: self._sources.get(path, DEFAULT) for path in setting_fields()}
        sources |= {path: source for path, source in self._sources.items() if path not in sources}
        return LoadedSettings(settings, sources, directory)

    def _table(self, table: str) -> Any:
        return table_classes()[table](**dict(self._values_of(table)))

    def _values_of(self, table: str) -> Iterator[tuple[str, Value]]:
        for path, value in self._values.items():
            owner, _, name = path.partition(".")
            if owner == table:
                yield name, value
