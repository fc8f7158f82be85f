"""What kinds, states and judgements of findings are called, and which of them nobody is called for."""

from collections.abc import Mapping

from dtf.api.v1 import findings_pb2 as pb

KIND_NAMES: Mapping[int, str] = {
    pb.FINDING_KIND_STEP: "step",
    pb.FINDING_KIND_DRIFT: "drift",
    pb.FINDING_KIND_VARIANCE: "variance",
    pb.FINDING_KIND_POINT: "point",
    pb.FINDING_KIND_COLLECTIVE: "collective",
    pb.FINDING_KIND_MULTIVARIATE: "multivariate",
}
"""How the store and people's commands write a kind."""
STATE_NAMES: Mapping[int, str] = {
    pb.FINDING_STATE_PROVISIONAL: "provisional",
    pb.FINDING_STATE_CONFIRMED: "confirmed",
    pb.FINDING_STATE_WENT_AWAY: "went_away",
}
IMPACT_NAMES: Mapping[int, str] = {
    pb.FINDING_IMPACT_REGRESSION: "regression",
    pb.FINDING_IMPACT_IMPROVEMENT: "improvement",
    pb.FINDING_IMPACT_CHANGE: "change",
}
TRIAGE_NAMES: Mapping[int, str] = {
    pb.TRIAGE_VERDICT_UNSPECIFIED: "",
    pb.TRIAGE_VERDICT_ACCEPTED: "accepted",
    pb.TRIAGE_VERDICT_REJECTED: "rejected",
    pb.TRIAGE_VERDICT_MUTED: "muted",
}
ANOMALIES = frozenset({pb.FINDING_KIND_POINT, pb.FINDING_KIND_COLLECTIVE, pb.FINDING_KIND_MULTIVARIATE})
"""Kinds that say nothing of what comes after: they are kept and drawn, and nobody is called for them."""
