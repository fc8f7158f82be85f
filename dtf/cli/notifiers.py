"""The ways to tell people of findings that the settings name."""

from dtf.adapters.mail_notifier import MailNotifier, MailServer
from dtf.adapters.web_notifiers import SlackNotifier, WebhookNotifier
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.client.connect import read_token
from dtf.ports.notifier import Notifier
from dtf.settings.trends import NotifySettings


def make_notifiers(settings: NotifySettings) -> list[Notifier]:
    """One for each way that [notify] names. Raises CommandError for what cannot be used."""
    made: list[Notifier] = []
    try:
        if settings.webhook_url:
            made.append(WebhookNotifier(settings.webhook_url, read_token(settings.webhook_token_file)))
        if settings.slack_url_file:
            made.append(SlackNotifier(read_token(settings.slack_url_file)))
        if settings.smtp_server:
            made.append(_mail(settings))
    except (OSError, ValueError) as error:
        raise CommandError(f"[notify]: {error}", exit_code=ExitCode.USAGE) from error
    return made


def _mail(settings: NotifySettings) -> MailNotifier:
    recipients = [each.strip() for each in settings.mail_to.split(",") if each.strip()]
    if not settings.mail_from or not recipients:
        raise ValueError("smtp_server is set, and mail_from and mail_to must be, too")
    server = MailServer.parse(
        settings.smtp_server, settings.smtp_tls, settings.smtp_user, read_token(settings.smtp_password_file)
    )
    return MailNotifier(server, settings.mail_from, recipients)
