"""`dtf trends accept`: say that a finding is real."""

from dtf.cli.trends_triage import triage_command

command = triage_command("accept")
