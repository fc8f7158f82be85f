// Prints the live feed of a dtf installation, over NATS in a WebSocket.
//
//     node failures.js ws://127.0.0.1:8080 .dtf/secrets/nats-tap [SUBJECT]
//
// SUBJECT is `dtf.<namespace>.live.<run or fleet>.<Type>`, with `*` for any; all of them unless said.

import { connect } from "./connection.js";

const [url, credentialsFile, subject = "dtf.*.live.>"] = process.argv.slice(2);
const broker = await connect(url, credentialsFile);
const subscription = broker.subscribe(subject);
await broker.flush();
console.error("listening");
process.on("SIGINT", () => broker.close());
for await (const message of subscription) {
  const line = message.json();
  console.log(line.at, line.run || "fleet", line.type, JSON.stringify(line.event));
}
