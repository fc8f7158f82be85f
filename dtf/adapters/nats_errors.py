"""What can go wrong with a nats-server of our own; each message says what to do.

NatsServerError
├── NatsServerMissing    there is no nats-server to start, or it is too old
└── NatsServerFailed     it was started and did not become ready, or ended
"""


class NatsServerError(Exception):
    """Base of what can go wrong with a nats-server of our own; the message says what to do."""


class NatsServerMissing(NatsServerError):
    """There is no nats-server to start, or it is too old."""


class NatsServerFailed(NatsServerError):
    """It was started and did not become ready, or it ended."""
