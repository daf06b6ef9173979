/**
 * Measures what a streamed message costs this client, in rounds that alternate with the Python client's against one server with
 * the scripted model, and prints one JSON line: the median round of each, in microseconds a message.
 */

import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

import { Helper, python, root } from "../conformance/helper.js";
import { Client, prompt } from "../src/index.js";

const ROUNDS = 3;
const TOKENS = 10_000;
const WARM_UP_TOKENS = 500;

/** Generates in a process of its own, as in service, and at a pace at which almost every token is a message. */
const SERVER = { script: { context_length: 16_384, step_seconds: 0.0002 }, settings: {}, engine: "process" };

/** What one stream took: its messages, and microseconds of wall and of the client's CPU time for each. */
interface Round {
  messages: number;
  wall_us: number;
  cpu_us: number;
}

async function measure(target: string): Promise<Round> {
  const client = new Client(target);
  try {
    await read(client, WARM_UP_TOKENS);
    const wall = process.hrtime.bigint();
    const cpu = process.cpuUsage();
    const messages = await read(client, TOKENS);
    const { user, system } = process.cpuUsage(cpu);
    return { messages, wall_us: Number(process.hrtime.bigint() - wall) / 1000 / messages, cpu_us: (user + system) / messages };
  } finally {
    client.close();
  }
}

async function read(client: Client, maxTokens: number): Promise<number> {
  const stream = client.stream(prompt("go on", { stop: { maxTokens } }));
  let messages = 0;
  while (!(await stream.next()).done) messages += 1;
  return messages;
}

async function measurePython(target: string): Promise<Round> {
  const script = join(root(), "clients", "bench_python.py");
  const { stdout } = await promisify(execFile)(python(), [script, target, String(TOKENS)]);
  return JSON.parse(stdout) as Round;
}

function median(rounds: Round[]): Round | undefined {
  return rounds.sort((a, b) => a.wall_us - b.wall_us)[Math.floor(rounds.length / 2)];
}

const helper = await Helper.start();
try {
  const { grpc } = await helper.post<{ grpc: string }>("server", SERVER);
  const own: Round[] = [];
  const others: Round[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    own.push(await measure(grpc));
    others.push(await measurePython(grpc));
  }
  console.log(JSON.stringify({ client: "typescript", tokens: TOKENS, rounds: ROUNDS, own: median(own), python: median(others) }));
} finally {
  await helper.end();
}
