// A connection to the broker over WebSocket: as a browser makes it, which has a WebSocket of its own.

import { readFileSync } from "node:fs";
import { wsconnect } from "@nats-io/nats-core";
import WebSocket from "ws";

globalThis.WebSocket ??= WebSocket; // Node has one since 22

export async function connect(url, credentialsFile) {
  const [user, pass] = readFileSync(credentialsFile, "utf8").trim().split(":");
  return await wsconnect({ servers: url, user, pass });
}
