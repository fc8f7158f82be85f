"""What people's judgements say of a rule, and how much evidence it needs from then on.

A rule is a kind of finding. Of its findings that people judged, the share called real is its
precision. To what was judged the prior is added: PRIOR_ACCEPTED real ones and PRIOR_REJECTED false
alarms, odds of 4, at which a rule needs no more evidence than the engine asks for anyway (it lets
FALSE_ALARM_SHARE of the series without a change through). Where the odds are lower, the evidence
asked for rises: by Bayes' rule the odds that a finding is real are inversely proportional to the
share of false alarms let through, so that share falls as the odds are below 4.
"""

import math
from dataclasses import dataclass

PRIOR_ACCEPTED = 4
PRIOR_REJECTED = 1
FALSE_ALARM_SHARE = 0.05
"""What the engine lets through: done-when 1 of its accuracy (docs/statistics.md)."""

_Z = 1.96


@dataclass(slots=True)
class RuleRecord:
    """How a rule has done."""

    standing: int = 0
    gone: int = 0
    accepted: int = 0
    rejected: int = 0

    @property
    def precision(self) -> float | None:
        """Share of real ones among the judged; None: none was judged."""
        judged = self.accepted + self.rejected
        return self.accepted / judged if judged else None

    @property
    def precision_interval(self) -> tuple[float, float]:
        """95 % interval of it (Wilson, JASA 22, 1927)."""
        judged = self.accepted + self.rejected
        if not judged:
            return 0.0, 1.0
        share = self.accepted / judged
        middle = (share + _Z * _Z / (2 * judged)) / (1 + _Z * _Z / judged)
        half = _Z * math.sqrt(share * (1 - share) / judged + (_Z / (2 * judged)) ** 2)
        half /= 1 + _Z * _Z / judged
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def required_confidence(self) -> float:
        """Confidence that a finding needs to be raised; 0: the engine's own evidence is enough."""
        odds = (self.accepted + PRIOR_ACCEPTED) / (self.rejected + PRIOR_REJECTED)
        due = odds / (PRIOR_ACCEPTED / PRIOR_REJECTED)
        return 0.0 if due >= 1 else 1 - FALSE_ALARM_SHARE * due
