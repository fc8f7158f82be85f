"""Settings of what is done about findings: more points, the gate and the notices."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TrendsSettings:
    """What the trend analyzer does to be surer of a change."""

    confirm: bool = False
    """Have cases run again, one run at a time, while a change in them is provisional for want of points."""
    confirm_per_change: int = 10
    """Such runs for one change at most; it takes ten values to confirm one. 0: none."""
    confirm_per_hour: int = 30
    """Such runs in any hour at most, for all changes together."""
    confirm_max_age_hours: float = 1.0
    """Only what was measured so recently is measured again: later the machine is another, and so may be the tree."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """When `dtf gate` fails."""

    max_regression: float = 0.05
    """Share by which a series may have become worse. A smaller confirmed change is real, but let through."""
    limits: dict[str, str] = field(default_factory=dict)
    """Other shares for some series, by pattern of "case metric": "*::test_startup* duration_seconds" = "0.2". The first that fits counts."""
    window_days: float = 30.0
    """Without a base: changes older than this are history."""
    provisional: bool = False
    """Fail on changes that more points may take back, too."""
    require_history: float = 0.0
    """Share of the compared series that must have points enough for a change to be found in them; 0: none, as a
    suite's first runs and every new case have too few."""


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Whom the trend analyzer tells of findings."""

    webhook_url: str = ""
    """POST of JSON to this address; empty: none."""
    webhook_token_file: str = ""
    """File with a bearer token for it."""
    slack_url_file: str = ""
    """File with the address of a Slack incoming webhook, which is a secret."""
    smtp_server: str = ""
    """host:port of a mail server; empty: no mail."""
    smtp_tls: str = "starttls"
    """starttls, tls, or off (for a server on this machine)."""
    smtp_user: str = ""
    smtp_password_file: str = ""
    mail_from: str = ""
    mail_to: str = ""
    """Addresses, separated by commas."""
    provisional: bool = False
    """Tell of changes that more points may take back, too."""
    improvements: bool = False
    """Tell of what became better, too."""
    changes: bool = False
    """Tell of what is neither: a spread, or a metric of which it is not known where it is better."""
    linger_seconds: float = 30.0
    """Findings that come within this time are told in one message."""
    messages_per_hour: float = 12.0
    """At most so many on each way; what comes meanwhile waits and is told together."""
    max_age_hours: float = 24.0
    """What was found from older points (of imported history, of a log read anew) is not told."""
