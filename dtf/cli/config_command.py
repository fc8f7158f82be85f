"""`dtf config`: each setting, its value and where it came from."""

import json
import re

import click

from dtf.cli.invocation import Invocation
from dtf.settings.fields import Value, setting_fields
from dtf.settings.loader import LoadedSettings

_PASSWORD = re.compile(r"(?<=//)([^/@:]*):[^/@]*(?=@)")


def setting_values(loaded: LoadedSettings) -> dict[str, Value]:
    """The settings by path, fit to be shown: passwords inside addresses are not."""
    shown: dict[str, Value] = {}
    for path, setting in setting_fields().items():
        value = getattr(getattr(loaded.settings, setting.table), setting.name)
        shown[path] = _PASSWORD.sub(r"\1:***", value) if isinstance(value, str) else value
    return shown


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
