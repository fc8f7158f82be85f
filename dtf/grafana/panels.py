"""How panels are built here: each asks one Flux query of the provisioned data source.

Grafana reads a Flux table with `_value` and a time as a time series whose labels are its other string columns
without an underscore in front, and any other as rows (pkg/tsdb/influxdb/flux/builder.go). So what `series`
is given keeps `_value`, and what `rows` is given has none.
"""

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, StackingConfig, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Dashboard, QueryVariable
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    StackingMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    AnnotationTarget,
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    VariableRefresh,
    VariableSort,
)

FOLDER = "dtf"
DATA_SOURCE_UID = "dtf-influxdb"
FULL_WIDTH = 24
HALF_WIDTH = 12
ALL = ".*"
"""What stands for every value of a variable, inside a regular expression."""


def data_source(uid: str) -> DataSourceRef:
    """The InfluxDB that every panel asks."""
    return DataSourceRef(type_val="influxdb", uid=uid)


class FluxQuery(Builder[Dataquery], Dataquery):
    """A panel's query; Grafana has no schema of InfluxDB's, so this is what its editor writes."""

    def __init__(self, flux: str, uid: str) -> None:
        self.flux = flux
        self._uid = uid

    def build(self) -> Dataquery:
        """Itself."""
        return self

    def to_json(self) -> dict[str, object]:
        """As a target of a panel."""
        return {"refId": "A", "datasource": data_source(self._uid), "query": self.flux}


class _FluxTarget(AnnotationTarget):
    """An annotation's query: a target like a panel's."""

    def __init__(self, flux: str) -> None:
        super().__init__()
        self._flux = flux

    def to_json(self) -> dict[str, object]:
        """As the target of an annotation."""
        return {"refId": "Anno", "query": self._flux}


class _Built(Builder[AnnotationTarget]):
    def __init__(self, target: AnnotationTarget) -> None:
        self._target = target

    def build(self) -> AnnotationTarget:
        return self._target


class Board:
    """One dashboard in the making."""

    def __init__(self, uid: str, title: str, description: str, *, since: str, data_source_uid: str) -> None:
        self._uid = data_source_uid
        self._dashboard = (
            Dashboard(title)
            .uid(uid)
            .description(description)
            .tags([FOLDER])
            .time(since, "now")
            .timezone("browser")
            .refresh("1m")
            .tooltip(DashboardCursorSync.CROSSHAIR)
        )

    def variable(self, name: str, label: str, flux: str, *, has_all: bool = False) -> None:
        """A choice above the panels, asked for again when the time changes."""
        made = (
            QueryVariable(name)
            .label(label)
            .datasource(data_source(self._uid))
            .query(flux)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
        )
        if has_all:
            made = made.include_all(True).multi(True).all_value(ALL)
        self._dashboard.with_variable(made)

    def annotation(self, name: str, flux: str, color: str) -> None:
        """Marks over every panel; the columns time, title, text and tags say what they are."""
        self._dashboard.annotation(
            AnnotationQuery()
            .name(name)
            .datasource(data_source(self._uid))
            .enable(True)
            .icon_color(color)
            .target(_Built(_FluxTarget(flux)))
        )

    def number(
        self, title: str, flux: str, *, unit: str = "short", description: str = "", width: int = 6
    ) -> None:
        """The newest value of each series, large."""
        panel = (
            stat.Panel()
            .title(title)
            .description(description)
            .unit(unit)
            .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
            .with_target(FluxQuery(flux, self._uid))
            .datasource(data_source(self._uid))
            .span(width)
            .height(4)
        )
        self._dashboard.with_panel(panel)

    def series(
        self,
        title: str,
        flux: str,
        *,
        unit: str = "short",
        description: str = "",
        name: str = "${__field.name}",
        width: int = HALF_WIDTH,
        as_steps: bool = False,
        as_points: bool = False,
        is_stacked: bool = False,
    ) -> None:
        """Lines over time; `as_steps` where a value holds until the next, `as_points` where each stands for itself."""
        panel = (
            timeseries.Panel()
            .title(title)
            .description(description)
            .unit(unit)
            .display_name(name)
            .min(0)
            .with_target(FluxQuery(flux, self._uid))
            .datasource(data_source(self._uid))
            .legend(
                VizLegendOptions()
                .show_legend(True)
                .display_mode(LegendDisplayMode.LIST)
                .placement(LegendPlacement.BOTTOM)
            )
            .span(width)
            .height(8)
        )
        if as_steps:
            panel.line_interpolation(LineInterpolation.STEP_AFTER)
        if as_points:
            panel.draw_style(GraphDrawStyle.LINE).show_points(VisibilityMode.ALWAYS).point_size(6)
        if is_stacked:
            panel.draw_style(GraphDrawStyle.BARS).fill_opacity(60)
            panel.stacking(StackingConfig().mode(StackingMode.NORMAL))
        self._dashboard.with_panel(panel)

    def rows(
        self,
        title: str,
        flux: str,
        columns: Sequence[str],
        *,
        units: dict[str, str] | None = None,
        description: str = "",
        width: int = HALF_WIDTH,
    ) -> None:
        """A table with `columns` in this order."""
        order: dict[str, Any] = {"indexByName": {name: index for index, name in enumerate(columns)}}
        panel = (
            table.Panel()
            .title(title)
            .description(description)
            .with_target(FluxQuery(flux, self._uid))
            .datasource(data_source(self._uid))
            .with_transformation(DataTransformerConfig(id_val="organize", options=order))
            .span(width)
            .height(8)
        )
        for name, unit in (units or {}).items():
            panel.override_by_name(name, [DynamicConfigValue(id_val="unit", value=unit)])
        self._dashboard.with_panel(panel)

    def build(self) -> Dashboard:
        """The dashboard."""
        return self._dashboard
