"""Notices by mail, over SMTP."""

import asyncio
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage

from dtf.ports.notifier import Notice, NotifierError

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in, and as whom."""

    host: str
    port: int
    tls: str = "starttls"
    """starttls, tls or off."""
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, address: str, tls: str, user: str = "", password: str = "") -> "MailServer":
        """The server at "host:port". Raises ValueError."""
        host, separator, port = address.rpartition(":")
        if not separator or not port.isdigit():
            raise ValueError(
                f"[notify] smtp_server is {address!r}, expected host:port, as mail.example.org:587"
            )
        return cls(host.strip("[]"), int(port), tls, user, password)


class MailNotifier:
    """Sends a plain-text mail."""

    name = "mail"

    def __init__(self, server: MailServer, sender: str, recipients: list[str]) -> None:
        self._server = server
        self._sender = sender
        self._recipients = recipients

    async def send(self, notice: Notice) -> None:
        """See the port."""
        message = EmailMessage()
        message["Subject"] = " ".join(notice.title.split())
        message["From"] = self._sender
        message["To"] = ", ".join(self._recipients)
        message.set_content(
            "\n".join([*notice.lines, "", "dtf trends shows them; dtf trends mute ID silences one."])
        )
        await asyncio.to_thread(self._hand_in, message)

    def _hand_in(self, message: EmailMessage) -> None:
        server = self._server
        try:
            with self._connect() as connection:
                if server.tls == "starttls":
                    connection.starttls(context=ssl.create_default_context())
                if server.user:
                    connection.login(server.user, server.password)
                connection.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            codes = {code for code, _ in error.recipients.values()}
            raise NotifierError(
                f"the mail server refuses {', '.join(error.recipients)}",
                is_retryable=all(400 <= code < 500 for code in codes),
            ) from error
        except smtplib.SMTPResponseException as error:
            raise NotifierError(
                f"the mail server answered {error.smtp_code} {error.smtp_error!r}",
                is_retryable=400 <= error.smtp_code < 500,
            ) from error
        except (smtplib.SMTPException, OSError) as error:
            is_retryable = not isinstance(error, smtplib.SMTPNotSupportedError | ssl.SSLCertVerificationError)
            raise NotifierError(f"no mail could be handed in: {error}", is_retryable=is_retryable) from error

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.tls == "tls":
            return smtplib.SMTP_SSL(
                server.host, server.port, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context()
            )
        return smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_SECONDS)
