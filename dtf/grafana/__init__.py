"""Grafana's data source and dashboards as code; `dtf grafana export` writes them. Needs the extra `dtf[grafana]`."""
