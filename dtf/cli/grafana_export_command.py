"""`dtf grafana export`: data source and dashboards as the files that Grafana is provisioned with."""

from pathlib import Path

import click

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--data-source",
    "data_source_uid",
    default=None,
    metavar="UID",
    help="Data source to use instead of ours.",
)
def command(directory: Path, data_source_uid: str | None) -> None:
    """Write provisioning/ and dashboards/ to DIRECTORY; what is there of the same name is replaced.

    Needs the extra dtf[grafana]. The same files are in deploy/grafana of the repository.

    \b
    Example:
        dtf grafana export grafana
        export INFLUXDB_V2_URL=… INFLUXDB_V2_ORG=… INFLUXDB_V2_BUCKET=dtf INFLUXDB_V2_TOKEN=…
        export GF_PATHS_PROVISIONING=$PWD/grafana/provisioning DTF_GRAFANA_DASHBOARDS=$PWD/grafana/dashboards
        grafana server --homepath /usr/share/grafana
    """
    try:
        from dtf.grafana.files import grafana_files
        from dtf.grafana.panels import DATA_SOURCE_UID
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is not installed",
            "pip install 'dtf[grafana]', or take the files in deploy/grafana of the repository",
            exit_code=ExitCode.USAGE,
        ) from error
    for name, text in grafana_files(data_source_uid or DATA_SOURCE_UID).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(str(path))
