"""The figures as tables, each with its aim beside."""

from collections.abc import Callable, Iterable
from math import isnan
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.accuracy_alarms import ALARM_AIM, DELAY_AIMS
from bench.accuracy_baselines import BASELINES
from bench.accuracy_calibration import SHARES
from bench.accuracy_families import POINTS_AFTER
from bench.accuracy_marks import COVER_AIM, F1_AIM, NAB_AIMS
from bench.accuracy_speed import AIMS, APPEND_AIM, MANY, MANY_AIM, MANY_LENGTH

WIDTH = 140


def show(figures: dict[str, Any]) -> None:
    """Print a table for each part that was measured."""
    console = Console(width=WIDTH, highlight=False)
    tables: dict[str, Callable[[Any], Table]] = {
        "alarms": alarms,
        "delays": delays,
        "lookalikes": lookalikes,
        "lookalikes2": lookalikes,
        "lookalikes3": lookalikes,
        "calibration": calibration,
        "watched": watched,
        "speed": speed,
        "tcpd": annotated,
        "nab": labelled,
    }
    for name, make in tables.items():
        if name in figures:
            print_part(console, make(figures[name]))


def print_part(console: Console, table: Table) -> None:
    """A table with its title above and its words below, which may be wider than it is."""
    title, words = table.title, table.caption
    table.title = table.caption = None
    console.print(title, style="bold", soft_wrap=True)
    console.print(table)
    if words:
        console.print(words, soft_wrap=True)
    console.print()


def verdict(is_met: bool) -> str:
    """A word behind an aim."""
    return "met" if is_met else "missed"


def _table(title: str, columns: Iterable[str], caption: str = "") -> Table:
    first, *others = columns
    table = Table(title=title, box=box.SIMPLE_HEAD, caption=caption or None)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    return table


def _percent(share: dict[str, float]) -> str:
    return f"{100 * share['share']:.1f} ({100 * share['low']:.1f}–{100 * share['high']:.1f})"


def _peer_names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["peers"]))


def alarms(rows: list[dict[str, Any]]) -> Table:
    """Shares of series without a step that get a change point."""
    peers = _peer_names(rows)
    table = _table(
        "False alarms: % of series without a step that get a change point (95 % interval)",
        (
            "family",
            "points",
            "series",
            "dtf, ever shown",
            f"aim {100 * ALARM_AIM:.0f}",
            "dtf, at the end",
            "asked anew",
            *peers,
        ),
        "dtf, ever shown: after each appended point, provisional ones counted, gone ones too; asked anew: "
        "analysed again with each further point, every answer counted; the peers see the whole series once.\nA drift called a drift is no false alarm; found as such: "
        + ", ".join(
            f"{100 * row['drift_found']:.0f} % at {row['length']:,}"
            for row in rows
            if row["family"].startswith("drift")
        )
        + " points.",
    )
    for row in rows:
        theirs = [
            f"{100 * row['peers'][name]['share']:.0f}" if name in row["peers"] else "" for name in peers
        ]
        met = verdict(row["ours"]["share"] <= ALARM_AIM)
        asked = _percent(row["asked_anew"]) if "asked_anew" in row else ""
        ours = (_percent(row["ours"]), met, _percent(row["ours_at_end"]), asked)
        table.add_row(row["family"], f"{row['length']:,}", str(row["series"]), *ours, *theirs)
    return table


def delays(rows: list[dict[str, Any]]) -> Table:
    """Points until a step is found."""
    peers = _peer_names(rows)
    table = _table(
        f"Detection delay: median points of the new regime until a step is given within ±5 (share within {POINTS_AFTER}); "
        "mean location error",
        ("step, sigma", "series", "dtf", "aim", "", "error then", f"error after {POINTS_AFTER}", *peers),
    )
    for row in rows:
        aim = DELAY_AIMS.get(row["size"])
        middle = row["ours"]["median"]
        met = "" if aim is None else verdict(middle is not None and middle <= aim)
        theirs = [
            f"{_delay(row['peers'][name])}, {_number(row['peers'][name]['location_error'])}"
            if name in row["peers"]
            else ""
            for name in peers
        ]
        table.add_row(
            f"{row['size']:g}",
            str(row["series"]),
            _delay(row["ours"]),
            "" if aim is None else f"≤ {aim}",
            met,
            _number(row["ours"]["location_error"]),
            _number(row["ours"]["last_location_error"]),
            *theirs,
        )
    return table


def _delay(summary: dict[str, Any]) -> str:
    middle = "never" if summary["median"] is None else f"{summary['median']:g}"
    return f"{middle} ({summary['found']:.2f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def calibration(rows: list[dict[str, Any]]) -> Table:
    """Shares of points with high anomaly scores."""
    table = _table(
        "Anomaly score: % of points of normal data with a score of 1 - p or more; promised: at most p",
        ("family", "length", "points", *(f"p = {100 * share:g} %" for share in SHARES)),
        "× is more than p by more than the sampling error of so many points.",
    )
    for row in rows:
        cells = [
            f"{100 * share:.3g}{'' if row['kept'][name] else ' ×'}" for name, share in row["shares"].items()
        ]
        table.add_row(row["family"], f"{row['length']:,}", f"{row['points']:,}", *cells)
    return table


def speed(figures: dict[str, Any]) -> Table:
    """Processor time, memory, many series."""
    peers = list(figures["peers"])
    append, many = figures["append"], figures["many"]
    memory = " / ".join(f"{each:,.0f}" for each in figures["memory_bytes_a_point"])
    table = _table(
        "Speed: seconds of processor time for a whole history (and how many times ours)",
        ("points", "dtf", "aim", "", "without numba", *peers),
        f"one appended point behind {figures['lengths'][-1]:,}: {1e3 * append['median']:.2f} ms median, "
        f"{1e3 * append['mean']:.2f} mean, {1e3 * append['longest']:.1f} longest (aim {1e3 * APPEND_AIM:.0f}: "
        f"{verdict(append['mean'] <= APPEND_AIM)})\n"
        f"{MANY:,} series of {MANY_LENGTH} points on two processes{'' if many['measured'] == MANY else ', estimated from the first'}: "
        f"{many['seconds']:.1f} s, "
        f"{many['cpu_seconds']:.1f} s of processor time (aim {MANY_AIM:.0f} s: {verdict(many['seconds'] <= MANY_AIM)})\n"
        f"memory while analysing, bytes a point at 10,000 / 100,000: {memory}"
        f"{'' if figures['is_compiled'] else chr(10) + 'numba is not installed (dtf[fast]): both columns are without it'}",
    )
    for number, length in enumerate(figures["lengths"]):
        ours, aim = figures["ours"][number], AIMS.get(length)
        theirs = [
            f"{figures['peers'][name][number]:.3f} ({figures['peers'][name][number] / ours:.1f}×)"
            for name in peers
        ]
        met = "" if aim is None else verdict(ours <= aim)
        plain = figures["plain"][number]
        table.add_row(
            f"{length:,}",
            f"{ours:.4f}",
            "" if aim is None else f"≤ {aim:g}",
            met,
            f"{plain:.4f}{'' if aim is None else f' ({verdict(plain <= aim)})'}",
            *theirs,
        )
    return table


def annotated(figures: dict[str, Any]) -> Table:
    """F1 and covering."""
    table = _table(
        f"Change points beside human marks: {figures['series']} series, margin 5",
        (
            "",
            "F1",
            f"aim ≥ {F1_AIM:.2f}",
            "covering",
            f"aim ≥ {COVER_AIM:.2f}",
            "F1, one dimension",
            "covering, one dimension",
        ),
        "`none` finds nothing at all.",
    )
    for name, scores in figures["scores"].items():
        is_ours = name == "ours"
        table.add_row(
            "dtf" if is_ours else name,
            f"{scores['f1']:.3f}",
            verdict(scores["f1"] >= F1_AIM) if is_ours else "",
            f"{scores['cover']:.3f}",
            verdict(scores["cover"] >= COVER_AIM) if is_ours else "",
            f"{scores['f1_one_dimension']:.3f}",
            f"{scores['cover_one_dimension']:.3f}",
        )
    return table


def lookalikes(figures: dict[str, Any]) -> Table:
    """The same on series made here."""
    table = annotated(figures)
    table.title = f"{figures['title']}: {figures['series']} series, margin 5"
    kinds = figures["by_kind"]
    table.caption = "`none` finds nothing at all. By kind, F1 and covering of dtf (of `none`):\n" + "\n".join(
        f"  {kind.replace('_', ' '):21} {scores['f1']:.2f} {scores['cover']:.2f} "
        f"({scores['none_f1']:.2f} {scores['none_cover']:.2f})"
        for kind, scores in kinds.items()
    )
    return table


def labelled(figures: dict[str, Any]) -> Table:
    """NAB's score."""
    aims = ", ".join(f"{aim:g}: {verdict(figures['score'] >= aim)}" for aim in NAB_AIMS)
    folders = {name: score for name, score in figures["by_folder"].items() if not isnan(score)}
    table = _table(
        f"Anomalies, NAB standard profile: {figures['files']} files, {figures['points']:,} points",
        ("", "score", "threshold"),
        "by folder, with the fixed threshold: "
        + ", ".join(f"{name or '.'} {score:.1f}" for name, score in folders.items()),
    )
    table.add_row(
        f"dtf, one fixed threshold (aim above {aims})", f"{figures['score']:.1f}", f"{figures['threshold']:g}"
    )
    table.add_row(
        "dtf, the threshold that suits these files best, as NAB reports",
        f"{figures['best_score']:.1f}",
        f"{figures['best_threshold']:.6g}",
    )
    for name, score in figures["baselines"].items():
        published = BASELINES[name][1]
        table.add_row(
            f"{name}, its best threshold (published of the real files: {published})", f"{score:.1f}", ""
        )
    return table


def watched(figures: dict[str, Any]) -> Table:
    """The same on files made here."""
    table = labelled(figures)
    table.title = (
        f"Anomalies in metrics as monitoring has them, made here: {figures['files']} files, "
        f"{figures['points']:,} points, NAB standard profile"
    )
    return table
