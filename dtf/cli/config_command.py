"""`dtf config`: each setting, its value and where it came from."""

import json
import re

import click

from dtf.cli.invocation import Invocation
from dtf.settings.fields import Value, pool_setting, setting_fields
from dtf.settings.loader import LoadedSettings
from dtf.settings.model import Settings

_PASSWORD = re.compile(r"(?<=//)([^/@:]*):[^/@]*(?=@)")


def setting_values(loaded: LoadedSettings) -> dict[str, Value]:
    """The settings by path, fit to be shown: passwords inside addresses are not."""
    shown: dict[str, Value] = {}
    for path, setting in setting_fields().items():
        value = getattr(getattr(loaded.settings, setting.table), setting.name)
        shown[path] = _without_password(value)
    for path in loaded.sources:
        if path not in shown:
            shown[path] = _without_password(_of_pool(loaded.settings, path))
    return shown


def _of_pool(settings: Settings, path: str) -> Value:
    """The value of a setting of one of [pools.NAME]."""
    found = pool_setting(path)
    assert found is not None, path
    pool, setting = found
    value: Value = getattr(getattr(settings.of_pool(pool), setting.table), setting.name)
    return value


def _without_password(value: Value) -> Value:
    return _PASSWORD.sub(r"\1:***", value) if isinstance(value, str) else value


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(invocation: Invocation, as_json: bool) -> None:
    """Show each setting, its value and where it came from.

    \b
    Example:
        dtf config
        dtf --set pool.max_workers=4 config --json
    """
    loaded = invocation.load()
    values = setting_values(loaded)
    if as_json:
        rows = {path: {"value": value, "source": loaded.sources[path]} for path, value in values.items()}
        click.echo(json.dumps({"project_dir": str(loaded.project_dir), "settings": rows}))
        return
    width = max(map(len, values))
    texts = {path: json.dumps(value) for path, value in values.items()}
    value_width = max(map(len, texts.values()))
    click.echo(f"project {loaded.project_dir}")
    for path, text in texts.items():
        click.echo(f"{path:<{width}}  {text:<{value_width}}  {loaded.sources[path]}")
