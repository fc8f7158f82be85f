"""`dtf trends reject`: say that a finding is a false alarm."""

from dtf.cli.trends_triage import triage_command

command = triage_command("reject")
