"""Groups of findings in words, and as JSON has them."""

from collections.abc import Sequence

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_groups import FindingGroup
from dtf.core.trend.finding_text import change_text, relative_text, revisions_text, series_text, value_text
from dtf.core.trend.finding_words import IMPACT_NAMES


def group_sentence(group: FindingGroup) -> str:
    """What is shared, or what moved from where to where."""
    return f"{group_head(group)}{group_tail(group)}"


def group_head(group: FindingGroup) -> str:
    """ "confirmed regression of 12 series, median +25 %, since 4f2a91c..9d3e001"."""
    where = group_revisions(group)
    since = f" since {where}" if where else ""
    state = "confirmed" if group.is_confirmed else "provisional"
    if group.is_moved:
        return f"{state}: {moved_text(group)}{since}"
    first = group.findings[0]
    impact = IMPACT_NAMES.get(first.impact, "change")
    if first.kind == pb.FINDING_KIND_VARIANCE:
        return f"{state} change of spread of {len(group.findings)} series{since}"
    effect = f", median {relative_text(group.median_relative)},"
    return f"{state} {impact} of {len(group.findings)} series{effect}{since}".rstrip(",")


def group_tail(group: FindingGroup) -> str:
    """What is behind the head: of a shared change the largest, of a moved cost the sum."""
    if group.is_moved:
        unit = group.findings[0].unit
        low, high = value_text(group.rest.low, unit), value_text(group.rest.high, unit)
        suite = ", the suite did not change" if group.is_proven else "; the suite has no series of the sum"
        return f"; together {low} to {high}{suite}"
    largest = group.largest
    return f"; the largest: {series_text(largest.series)} {change_text(largest)} [{largest.finding_id}]"


def moved_text(group: FindingGroup) -> str:
    """ "1.2 s of duration_seconds (local) moved from test_a and 1 more to test_b"."""
    first = group.findings[0]
    pool = f" ({first.series.pool})" if first.series.pool else ""
    cost = f"{value_text(group.moved, first.unit)} of {first.series.metric}{pool}"
    return f"{cost} moved from {_named(group.sources)} to {_named(group.targets)}"


def group_revisions(group: FindingGroup) -> str:
    """ "4f2a91c..9d3e001": the revisions that may have done all of them; "" if they are not known."""
    place = pb.Finding(revision_before=group.revision_before, revision_last=group.revision_last)
    return revisions_text(place)


def group_document(group: FindingGroup) -> dict[str, object]:
    """The group as JSON has it; its findings by their identities."""
    document: dict[str, object] = {
        "kind": "moved" if group.is_moved else "shared",
        "sentence": group_sentence(group),
        "revision_before": group.revision_before,
        "revision_last": group.revision_last,
        "is_confirmed": group.is_confirmed,
        "finding_ids": [each.finding_id for each in group.findings],
    }
    if group.is_moved:
        return document | {
            "from": [each.finding_id for each in group.sources],
            "to": [each.finding_id for each in group.targets],
            "moved": group.moved,
            "is_proven": group.is_proven,
            "rest_low": group.rest.low,
            "rest_high": group.rest.high,
        }
    relative = group.median_relative
    return document | {
        "median_relative": relative if relative == relative else None,
        "largest": group.largest.finding_id,
    }


def _named(findings: Sequence[pb.Finding]) -> str:
    more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    return f"{findings[0].series.case_name}{more}"
