/**
 * A conversation in the terminal, with any mlx_grpc server. Ctrl-C stops an answer, Ctrl-D ends.
 *
 * npm run chat [TARGET]
 */

import { createInterface } from "node:readline";

import { assistant, Cancelled, Client, DEFAULT_TARGET, MlxGrpcError, user, type Message } from "../src/index.js";

const token = process.env["MLX_GRPC_TOKEN"];
const client = new Client(process.argv[2] ?? DEFAULT_TARGET, token ? { token } : {});
const lines = createInterface({ input: process.stdin, output: process.stdout, prompt: "> " });
const messages: Message[] = [];
let answering: AbortController | undefined;

lines.on("SIGINT", () => (answering ? answering.abort() : lines.close()));
lines.prompt();
for await (const line of lines) {
  if (line.trim()) await turn(line);
  lines.prompt();
}
client.close();

/** Prints the answer as it comes. Ctrl-C leaves the call, and the server stops generating. */
async function turn(line: string): Promise<void> {
  messages.push(user(line));
  answering = new AbortController();
  let answer = "";
  try {
    for await (const text of client.chat(messages, {}, { signal: answering.signal }).text()) {
      process.stdout.write(text);
      answer += text;
    }
  } catch (error) {
    if (!(error instanceof MlxGrpcError)) throw error;
    if (!(error instanceof Cancelled)) {
      process.stderr.write(`${error.name}: ${error.message}`);
      messages.pop();
      return;
    }
  } finally {
    answering = undefined;
    process.stdout.write("\n");
  }
  messages.push(assistant(answer));
}
