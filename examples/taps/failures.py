"""Prints the live feed of a dtf installation: one line an event, as it is decided.

    python failures.py nats://127.0.0.1:4222 .dtf/secrets/nats-tap [SUBJECT]

SUBJECT is `dtf.<namespace>.live.<run or fleet>.<Type>`, with `*` for any; all of them unless said.
Needs only nats-py.
"""

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

import nats


async def main(url: str, credentials_file: str, subject: str = "dtf.*.live.>") -> None:
    client = await nats.connect(url, **credentials(credentials_file))
    subscription = await client.subscribe(subject)
    await client.flush()
    print("listening", file=sys.stderr, flush=True)
    async for message in subscription.messages:
        line = json.loads(message.data)
        print(line["at"], line["run"] or "fleet", line["type"], json.dumps(line["event"]), flush=True)


def credentials(path: str) -> dict[str, str]:
    user, _, password = Path(path).read_text().strip().partition(":")
    return {"user": user, "password": password}


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
