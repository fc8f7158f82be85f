"""Every setting there is, read from the classes of model.py, and how its value is written."""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache

from dtf.settings import providers
from dtf.settings.model import Settings

POOLS = "pools"
Value = str | int | float | bool | dict[str, str]


class BadValue(ValueError):
    """A value that is not of its setting's type; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class SettingField:
    """One setting."""

    table: str
    name: str
    kind: type
    """str, int, float, bool or dict (of str to str)."""
    default: Value

    @property
    def path(self) -> str:
        """Its name in dtf.toml and on the command line, as "nats.url"."""
        return f"{self.table}.{self.name}"

    @property
    def variable(self) -> str:
        """Its environment variable, as "DTF_NATS_URL"."""
        return f"DTF_{self.table}_{self.name}".upper()


@cache
def setting_fields() -> Mapping[str, SettingField]:
    """The settings by path, in the order of model.py."""
    found: dict[str, SettingField] = {}
    for table_name, table_class in table_classes().items():
        hints = typing.get_type_hints(table_class)
        for item in fields(table_class):
            kind = typing.get_origin(hints[item.name]) or hints[item.name]
            default = item.default if item.default is not MISSING else {}
            setting = SettingField(table_name, item.name, kind, default)
            found[setting.path] = setting
    return types.MappingProxyType(found)


@cache
def table_classes() -> Mapping[str, type[typing.Any]]:
    """The class of each table, in the order of model.py; [pools.NAME] has those of [pool] and the providers."""
    hints = typing.get_type_hints(Settings)
    return types.MappingProxyType(
        {item.name: hints[item.name] for item in fields(Settings) if item.name != POOLS}
    )


@cache
def provider_tables() -> frozenset[str]:
    """The tables of the providers of workers."""
    return frozenset(name for name, kind in table_classes().items() if kind.__module__ == providers.__name__)


def pool_setting(path: str) -> tuple[str, SettingField] | None:
    """Pool and setting of "pools.NAME.max_workers" or "pools.NAME.kubernetes.image"; None: there is none."""
    owner, _, name = path.removeprefix(f"{POOLS}.").rpartition(".")
    pool, _, table = owner.rpartition(".")
    if table in provider_tables() and pool:
        setting = setting_fields().get(f"{table}.{name}")
        return None if setting is None else (pool, setting)
    setting = setting_fields().get(f"pool.{name}")
    return None if setting is None or not owner or name == "name" else (owner, setting)


def convert(setting: SettingField, value: object) -> Value:
    """`value`, from TOML, JSON or a flag, as the setting's type. Raises BadValue."""
    if setting.kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if setting.kind is dict and isinstance(value, Mapping):
        return _labels(value)
    if isinstance(value, bool) is (setting.kind is bool) and isinstance(value, setting.kind):
        return typing.cast(Value, value)
    raise BadValue(f"{value!r} is not {_expected(setting.kind)}")


def parse(setting: SettingField, text: str) -> Value:
    """`text`, from the environment or a flag, as the setting's type. Raises BadValue."""
    try:
        match setting.kind:
            case builtin if builtin is str:
                return text
            case builtin if builtin is int:
                return int(text)
            case builtin if builtin is float:
                return float(text)
            case builtin if builtin is bool:
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                    text.lower()
                ]
            case _:
                return _parse_labels(text)
    except (ValueError, KeyError):
        raise BadValue(f"{text!r} is not {_expected(setting.kind)}") from None


def _labels(value: Mapping[object, object]) -> dict[str, str]:
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise BadValue(f'{key} = {item!r} is not a text; write {key} = "{item}"')
    return {str(key): str(item) for key, item in value.items()}


def _parse_labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, separator, item = part.partition("=")
        if not separator or not key:
            raise ValueError(part)
        labels[key.strip()] = item.strip()
    return labels


def _expected(kind: type) -> str:
    if kind is dict:
        return "a set of labels (key=value,key=value)"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
