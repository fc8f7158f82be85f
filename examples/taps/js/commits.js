// Reads the event log of a dtf installation, over NATS in a WebSocket: one JSON object an event, from
// the first commit, and goes on from there when it is started again.
//
//     node commits.js ws://127.0.0.1:8080 .dtf/secrets/nats-tap default DESCRIPTORS [TYPE]
//
// DESCRIPTORS is the schema, compiled: buf build proto -o dtf.binpb
// TYPE, as RunFinished, passes over commits without such an event by their header, unparsed.
// A durable consumer remembers how far it came; it is named by CONSUMER (default: js).

import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "./connection.js";

const [url, credentialsFile, namespace, descriptors, type] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const Commit = registry.getMessage("dtf.api.v1.Commit");
const Event = registry.getMessage("dtf.api.v1.Event");

const broker = await connect(url, credentialsFile);
const stream = `DTF_EVENTS_${namespace}`;
const durable_name = process.env.CONSUMER ?? "js";
const manager = await jetstreamManager(broker, { checkAPI: false });
await manager.consumers.add(stream, { durable_name, ack_policy: AckPolicy.Explicit });
const consumer = await jetstream(broker, { checkAPI: false }).consumers.get(stream, durable_name);
const messages = await consumer.consume();
process.on("SIGINT", () => messages.stop());
for await (const message of messages) {
  const types = message.headers?.get("Dtf-Types")?.split(",") ?? [];
  if (!type || types.includes(type)) print(message);
  message.ack();
}
await broker.drain();

function print(message) {
  const commit = fromBinary(Commit, message.data);
  for (const event of commit.events) {
    const said = toJson(Event, event, { useProtoFieldName: true, registry });
    console.log(JSON.stringify({ sequence: message.seq, now_unix_nanos: String(commit.nowUnixNanos), event: said }));
  }
}
