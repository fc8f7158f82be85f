"""What the clouds tell a machine of itself, over HTTP."""

from tests.http_api import Answer, Asked, HttpApi

EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
ACTION = "/latest/meta-data/spot/instance-action"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
NEEDED = {ACTION: ("X-aws-ec2-metadata-token", "session-1"), PREEMPTED: ("Metadata-Flavor", "Google")}


class Metadata(HttpApi):
    """The metadata of one machine. Like the clouds' they refuse whoever lacks the right header."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.asked = 0
        super().__init__(self._answer)

    def _answer(self, asked: Asked) -> Answer:
        if asked.method == "PUT":
            has_ttl = "X-aws-ec2-metadata-token-ttl-seconds" in asked.headers
            return Answer("session-1", 200 if has_ttl and asked.target == "/latest/api/token" else 400)
        self.asked += 1
        header, value = NEEDED.get(asked.target, ("Metadata", "true"))
        if asked.headers.get(header) != value:
            return Answer(status=401)
        if asked.target in self.answers:
            return Answer(self.answers[asked.target])
        return Answer(status=404)
