"""How two revisions differ: as lines, Markdown for a pull request, one page, JSON, JUnit XML.

Changes that one revision explains are told once, and so is cost that moved between cases: the series
behind them are named where there is room (Markdown folds them, the page and JSON list them).
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from xml.etree import ElementTree

import jinja2
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.core.trend.finding_groups import FindingGroup, group_findings, groups_by_finding
from dtf.core.trend.finding_text import finding_sentence, relative_text, series_text, value_text
from dtf.core.trend.gating import Coverage
from dtf.core.trend.group_text import group_document, group_sentence
from dtf.report.output import plain, plain_line
from dtf.report.wording import counted

UNCHANGED_SHOWN = 500
"""Series without a change that a page names."""
_SHOWN = 12
"""Characters of a revision."""
_MOVED = "moved"
_MARKUP = re.compile(r"[\\`*\[\]<>&|~#!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown takes for its own, an underscore within a word not being among it; an entity never is."""

_WORDS = {
    findings_pb2.FINDING_IMPACT_REGRESSION: "worse",
    findings_pb2.FINDING_IMPACT_IMPROVEMENT: "better",
    findings_pb2.FINDING_IMPACT_CHANGE: "different",
    findings_pb2.FINDING_IMPACT_UNSPECIFIED: "no change found",
}


def render_comparison(
    compared: pb.CompareRevisionsResponse, suite: str, kind: str, *, shows_each: bool = False
) -> str:
    """The comparison as "text", "md", "html", "json" or "junit"; as text with each series of a group if asked to."""
    if kind == "text":
        return _text(compared, suite, shows_each=shows_each)
    return _RENDERERS[kind](compared, suite)


def comparison_document(compared: pb.CompareRevisionsResponse) -> dict[str, object]:
    """The comparison as JSON has it, zeros included, with the groups among its findings."""
    document: dict[str, object] = MessageToDict(
        compared, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document | {"groups": [group_document(group) for group in groups_of(compared)]}


def groups_of(compared: pb.CompareRevisionsResponse) -> tuple[FindingGroup, ...]:
    """Changes that several series share, then cost that moved."""
    groups = group_findings(found.finding for each in compared.series for found in each.findings)
    return tuple(sorted(groups, key=lambda group: group.is_moved))


def changed(compared: pb.CompareRevisionsResponse) -> list[pb.SeriesComparison]:
    """Series with a change, the worst first."""
    return [each for each in compared.series if each.impact]


def summary_sentence(compared: pb.CompareRevisionsResponse) -> str:
    """ "2 series worse, 1 better, 37 without a change"."""
    counts = dict.fromkeys(("worse", "better", "different", _MOVED), 0)
    group_of = groups_by_finding(groups_of(compared))
    for each in changed(compared):
        counts[_word(each, group_of)] += 1
    rest = len(compared.series) + compared.omitted_count - len(changed(compared))
    parts = [f"{count} {word}" for word, count in counts.items() if count]
    return f"{', '.join([*parts, f'{rest} without a change'])} of {counted(rest + len(changed(compared)), 'series', 'series')}"


def _word(each: pb.SeriesComparison, group_of: Mapping[str, FindingGroup]) -> str:
    """What became of the series: "moved" if all that changed in it is cost that went elsewhere or came from there."""
    groups = [group_of.get(found.finding.finding_id) for found in each.findings]
    if groups and all(group is not None and group.is_proven for group in groups):
        return _MOVED
    return _WORDS[each.impact]


def _is_told(each: pb.SeriesComparison, group_of: Mapping[str, FindingGroup]) -> bool:
    """Whether groups say all that changed in the series."""
    return bool(each.findings) and all(found.finding.finding_id in group_of for found in each.findings)


def _group_word(group: FindingGroup) -> str:
    return _MOVED if group.is_moved else _WORDS[group.findings[0].impact]


def change_of(each: pb.SeriesComparison) -> str:
    """ "+30 % (+28 % to +32 %)", or "within noise" """
    if not each.impact:
        return "within noise"
    return f"{relative_text(each.relative)} ({relative_text(each.relative_low)} to {relative_text(each.relative_high)})"


def values_of(each: pb.SeriesComparison) -> tuple[str, str]:
    """The values at the base and at the head."""
    return value_text(each.base_value, each.unit), value_text(each.head_value, each.unit)


def _text(compared: pb.CompareRevisionsResponse, suite: str, *, shows_each: bool = False) -> str:
    groups = groups_of(compared)
    group_of = groups_by_finding(groups)
    lines = [f"{suite}  {compared.base[:_SHOWN]}..{compared.head[:_SHOWN]}: {summary_sentence(compared)}"]
    lines += [f"{_group_word(group):<10} {group_sentence(group)}" for group in groups]
    for each in changed(compared):
        if _is_told(each, group_of) and not shows_each:
            continue
        base, head = values_of(each)
        lines.append(
            f"{_word(each, group_of):<10} {series_text(each.series)}  {change_of(each)}  {base} → {head}"
        )
        lines += [
            f"           {found.finding.finding_id}  {finding_sentence(found.finding)}"
            for found in each.findings
        ]
    if compared.short_count:
        lines.append(f"{'too short':<10} {Coverage.of(compared).sentence}")
    return "\n".join(map(plain_line, lines)) + "\n"


def _markdown(compared: pb.CompareRevisionsResponse, suite: str) -> str:
    lines = [
        f"### Performance of `{_code(suite)}`: `{_code(compared.base[:_SHOWN])}` to `{_code(compared.head[:_SHOWN])}`",
        "",
        summary_sentence(compared) + ".",
    ]
    groups = groups_of(compared)
    group_of = groups_by_finding(groups)
    told = [each for each in changed(compared) if _is_told(each, group_of)]
    alone = [each for each in changed(compared) if not _is_told(each, group_of)]
    if groups:
        lines += ["", *(f"- **{_group_word(group)}** {_cell(group_sentence(group))}" for group in groups)]
    if alone:
        lines += ["", *_table(alone, group_of)]
    if told:
        summary = f"<summary>each of the {len(told)} series in groups</summary>"
        lines += ["", "<details>", summary, "", *_table(told, group_of), "", "</details>"]
    lines += [
        "",
        "A change is told where the history of the series bears it out; what differs otherwise is noise.",
    ]
    if compared.short_count:
        lines += ["", f"Too short: {Coverage.of(compared).sentence}."]
    return "\n".join(lines) + "\n"


def _table(series: Sequence[pb.SeriesComparison], group_of: Mapping[str, FindingGroup]) -> list[str]:
    lines = ["| | series | base | head | change | finding |", "|---|---|---|---|---|---|"]
    for each in series:
        base, head = values_of(each)
        findings = ", ".join(
            f"<code>{_cell(found.finding.finding_id)}</code> {_state(found)}" for found in each.findings
        )
        name = _cell(series_text(each.series))
        lines.append(
            f"| {_word(each, group_of)} | {name} | {base} | {head} | {change_of(each)} | {findings} |"
        )
    return lines


def _state(found: pb.TrackedFinding) -> str:
    return findings_pb2.FindingState.Name(found.finding.state).removeprefix("FINDING_STATE_").lower()


def _cell(text: str) -> str:
    """`text` as it reads, in Markdown: names of other people's make no link, no table cell and call nobody."""
    return _MARKUP.sub(lambda found: f"&#{ord(found.group())};", plain_line(text)).replace("@", "@<!-- -->")


def _code(text: str) -> str:
    """`text` within backticks, where nothing but they means anything."""
    return plain_line(text).replace("`", "'")


def _json(compared: pb.CompareRevisionsResponse, suite: str) -> str:
    return json.dumps({"suite": suite, **comparison_document(compared)}) + "\n"


def _junit(compared: pb.CompareRevisionsResponse, suite: str) -> str:
    """A test case a series; a regression is a failure, cost that moved is none."""
    root = ElementTree.Element("testsuites")
    group_of = groups_by_finding(groups_of(compared))
    failed = [each for each in changed(compared) if _word(each, group_of) == "worse"]
    name = f"performance of {plain_line(suite)} {compared.base[:_SHOWN]}..{compared.head[:_SHOWN]}"
    group = ElementTree.SubElement(
        root, "testsuite", name=name, tests=str(len(compared.series)), failures=str(len(failed)), errors="0"
    )
    for each in compared.series:
        case = ElementTree.SubElement(
            group, "testcase", classname=plain_line(suite), name=plain_line(series_text(each.series))
        )
        if each.impact and _word(each, group_of) == "worse":
            message = f"{change_of(each)}: {' → '.join(values_of(each))}"
            failure = ElementTree.SubElement(case, "failure", message=message, type="regression")
            failure.text = plain("\n".join(finding_sentence(found.finding) for found in each.findings))
        elif each.impact:
            ElementTree.SubElement(case, "system-out").text = plain(
                f"{_word(each, group_of)}: {change_of(each)}"
            )
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _html(compared: pb.CompareRevisionsResponse, suite: str) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates = files("dtf.report") / "templates"
    template = environment.from_string((templates / "compare.html.j2").read_text("utf-8"))
    unchanged = [each for each in compared.series if not each.impact]
    groups = groups_of(compared)
    rows = _rows(changed(compared), groups_by_finding(groups))
    return template.render(
        suite=plain_line(suite),
        base=plain_line(compared.base),
        head=plain_line(compared.head),
        sentence=summary_sentence(compared),
        verdict="failed" if any(each["word"] == "worse" for each in rows) else "passed",
        groups=[(_group_word(group), plain_line(group_sentence(group))) for group in groups],
        changed=rows,
        unchanged=_rows(unchanged[:UNCHANGED_SHOWN], {}),
        omitted=max(0, len(unchanged) - UNCHANGED_SHOWN) + compared.omitted_count,
        only_base=compared.only_base_count,
        only_head=compared.only_head_count,
        too_short=Coverage.of(compared).sentence if compared.short_count else "",
        style=(templates / "report.css").read_text("utf-8"),
    )


def _rows(
    series: Sequence[pb.SeriesComparison], group_of: Mapping[str, FindingGroup]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for each in series:
        base, head = values_of(each)
        ratio = each.head_value / each.base_value - 1 if each.base_value else math.nan
        rows.append(
            {
                "word": _word(each, group_of),
                "name": plain_line(series_text(each.series)),
                "base": base,
                "head": head,
                "change": change_of(each) if each.impact else f"{relative_text(ratio)}, within noise",
                "findings": [
                    (plain_line(found.finding.finding_id), plain_line(finding_sentence(found.finding)))
                    for found in each.findings
                ],
            }
        )
    return rows


_RENDERERS: Mapping[str, Callable[[pb.CompareRevisionsResponse, str], str]] = {
    "text": _text,
    "md": _markdown,
    "html": _html,
    "json": _json,
    "junit": _junit,
}
