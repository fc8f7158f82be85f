"""Copies the event log of a dtf installation into a directory, one file a commit, and goes on from there.

    python archive.py nats://127.0.0.1:4222 .dtf/secrets/nats-tap default DIRECTORY [TYPE]

With a TYPE, as RunFinished, only commits with such an event are copied: the header Dtf-Types says
what is inside, so that the others are passed over unparsed.
A durable JetStream consumer remembers how far it came: started again, it continues. A commit is
acknowledged after its file is on the disk, so none is missed; one may be written twice, as itself.
Needs only nats-py; read the files with the stubs of dtf.api.v1, or `protoc --decode`.
"""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy


async def main(url: str, credentials_file: str, namespace: str, directory: str, wanted: str = "") -> None:
    client = await nats.connect(url, **credentials(credentials_file))
    consumer = await client.jetstream().pull_subscribe(
        f"dtf.{namespace}.log",
        durable=f"archive-{wanted}" if wanted else "archive",
        stream=f"DTF_EVENTS_{namespace}",
        config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.EXPLICIT),
    )
    target = Path(directory)
    while True:
        try:
            messages = await consumer.fetch(batch=100, timeout=5)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            sequence = message.metadata.sequence.stream
            types = (message.headers or {}).get("Dtf-Types", "")
            if not wanted or wanted in types.split(","):
                write(target / f"{sequence:012}.commit", message.data)
                print(sequence, types or "?", f"{len(message.data)} bytes", flush=True)
            await message.ack()


def write(path: Path, data: bytes) -> None:
    """The file appears whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def credentials(path: str) -> dict[str, str]:
    user, _, password = Path(path).read_text().strip().partition(":")
    return {"user": user, "password": password}


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
