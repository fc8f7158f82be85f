"""What Grafana is provisioned with, as files: data source, provider of dashboards, dashboards."""

import json
from collections.abc import Callable, Mapping

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dtf.grafana.case_board import case_board
from dtf.grafana.fleet_board import fleet_board
from dtf.grafana.panels import DATA_SOURCE_UID, FOLDER, Board
from dtf.grafana.suites_board import suites_board
from dtf.grafana.system_board import system_board

BOARDS: Mapping[str, Callable[[str], Board]] = {
    "fleet": fleet_board,
    "suites": suites_board,
    "case": case_board,
    "system": system_board,
}
"""The dashboards by the names of their files."""

DATA_SOURCE = """\
# Grafana puts the environment's variables in: the same four that `dtf trend-analyzer --store influxdb` reads.
# Give Grafana a token of its own that may only read the bucket.
apiVersion: 1
datasources:
  - name: dtf
    uid: {uid}
    type: influxdb
    access: proxy
    url: $INFLUXDB_V2_URL
    jsonData:
      version: Flux
      organization: $INFLUXDB_V2_ORG
      defaultBucket: $INFLUXDB_V2_BUCKET
    secureJsonData:
      token: $INFLUXDB_V2_TOKEN
"""

PROVIDER = """\
apiVersion: 1
providers:
  - name: dtf
    folder: {folder}
    type: file
    allowUiUpdates: false
    options:
      # DTF_GRAFANA_DASHBOARDS: the directory `dashboards` beside this one, as Grafana sees it.
      path: $DTF_GRAFANA_DASHBOARDS
"""


def grafana_files(data_source_uid: str = DATA_SOURCE_UID) -> dict[str, str]:
    """Text of each file by its path."""
    files = {
        "provisioning/datasources/dtf.yaml": DATA_SOURCE.format(uid=data_source_uid),
        "provisioning/dashboards/dtf.yaml": PROVIDER.format(folder=FOLDER),
    }
    for name, make in BOARDS.items():
        files[f"dashboards/{name}.json"] = dashboard_json(make(data_source_uid).build())
    return files


def dashboard_json(dashboard: Dashboard) -> str:
    """A dashboard as Grafana reads it."""
    return json.dumps(dashboard.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
