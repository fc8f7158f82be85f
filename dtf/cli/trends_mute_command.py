"""`dtf trends mute`: say that a finding is not to be spoken of."""

from dtf.cli.trends_triage import triage_command

command = triage_command("mute")
