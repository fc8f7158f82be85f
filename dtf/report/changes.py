"""What the suite's history says at the end of a run: changes that stand, those that share a cause told once."""

from collections.abc import Sequence
from dataclasses import dataclass

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.core.trend.finding_groups import FindingGroup, group_findings, groups_by_finding
from dtf.core.trend.finding_text import finding_sentence
from dtf.core.trend.group_text import group_document, group_sentence

MOST_TOLD = 50
"""Changes of a page: `dtf trends` lists all."""


@dataclass(frozen=True, slots=True)
class ToldChange:
    """One finding, or a group of them."""

    sentence: str
    finding_ids: tuple[str, ...]
    is_new: bool
    """Whether this run brought a finding of it, or the newest word of it."""
    group: FindingGroup | None = None


def told_changes(findings: Sequence[pb.TrackedFinding], run_id: str) -> list[ToldChange]:
    """The changes that are raised, those of this run first, then the newest."""
    raised = [each.finding for each in findings if each.is_raised]
    group_of = groups_by_finding(group_findings(raised))
    told: list[ToldChange] = []
    said: set[str] = set()
    for finding in raised:
        if finding.finding_id in said:
            continue
        group = group_of.get(finding.finding_id)
        members = group.findings if group is not None else (finding,)
        identities = tuple(each.finding_id for each in members)
        said.update(identities)
        is_new = any(each.caused_by_run_id == run_id for each in members)
        sentence = group_sentence(group) if group is not None else finding_sentence(finding)
        told.append(ToldChange(sentence, identities, is_new, group))
    return sorted(told, key=lambda each: not each.is_new)


def changes_text(told: Sequence[ToldChange]) -> str:
    """ "1 new: confirmed regression: test_big …; 2 known (dtf trends)"; "" if there is none."""
    new = [each for each in told if each.is_new]
    known = len(told) - len(new)
    more = f", and {len(new) - 1} more" if len(new) > 1 else ""
    parts = [f"new: {new[0].sentence}{more}"] if new else []
    parts += [f"{known} known from before (`dtf trends`)"] if known else []
    return "; ".join(parts)


def changes_document(told: Sequence[ToldChange]) -> list[dict[str, object]]:
    """The same as JSON has it."""
    return [
        {
            "sentence": each.sentence,
            "is_new": each.is_new,
            "finding_ids": list(each.finding_ids),
            "group": group_document(each.group) if each.group is not None else None,
        }
        for each in told
    ]
