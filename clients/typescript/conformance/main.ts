/** Plays the vectors of tests/conformance through the TypeScript client, and reports as the README there says. */

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { Client, type ClientOptions } from "../src/index.js";
import { Call } from "./call.js";
import { Helper, root } from "./helper.js";
import type { Facts, Step, Vector } from "./vector.js";

function* vectors(): Generator<Vector> {
  const folder = join(root(), "tests", "conformance");
  for (const file of readdirSync(folder).sort()) {
    if (file.endsWith(".json")) yield* JSON.parse(readFileSync(join(folder, file), "utf8")) as Vector[];
  }
}

/** Starts the vector's server and plays its steps; returns what differs. */
async function play(vector: Vector, helper: Helper): Promise<string[]> {
  const facts = await helper.post<Record<string, string>>("server", vector.server);
  const client = new Client(facts["grpc"], clientOptions(vector, facts));
  const background = new Map<string, Call>();
  const differences: string[] = [];
  try {
    for (const step of vector.steps) differences.push(...(await playStep(step, client, helper, background)));
    for (const call of background.values()) differences.push(...(await call.end()));
  } catch (error) {
    differences.push(String(error));
  } finally {
    client.close();
  }
  return differences;
}

function clientOptions({ client }: Vector, facts: Record<string, string>): ClientOptions {
  const options: ClientOptions = {};
  if (client.token !== undefined) options.token = client.token;
  if (client.retry !== undefined) options.retry = client.retry;
  if (client.tls) options.rootCertificates = facts["root_certificates"]!;
  if (client.mutual_tls) {
    options.privateKey = facts["private_key"]!;
    options.certificateChain = facts["certificate_chain"]!;
  }
  return options;
}

async function playStep(step: Step, client: Client, helper: Helper, background: Map<string, Call>): Promise<string[]> {
  if ("call" in step) {
    const call = new Call(client, step);
    if (!step.background) return call.end();
    background.set(call.name, call);
  } else if ("control" in step) {
    await helper.post(step.control, step.body);
  } else if ("wait" in step) {
    const { wait, ...bounds } = step;
    await helper.post("wait", { for: wait, ...bounds });
  } else if ("cancel" in step) {
    background.get(step.cancel)?.leave();
  } else if ("join" in step) {
    const call = background.get(step.join);
    background.delete(step.join);
    return call?.end() ?? [`nothing to join: ${step.join}`];
  } else {
    const found = await helper.get<Record<string, number>>("state");
    const wrong = Object.keys(step.state).filter((name) => !holds(step.state[name]!, found[name]!));
    return wrong.map((name) => `state ${name} is ${found[name]}, not ${JSON.stringify(step.state[name])}`);
  }
  return [];
}

function holds(wanted: number | { at_least?: number; at_most?: number }, found: number): boolean {
  if (typeof wanted === "number") return wanted === found;
  return found >= (wanted.at_least ?? found) && found <= (wanted.at_most ?? found);
}

async function main(): Promise<boolean> {
  const helper = await Helper.start();
  const results: Facts = {};
  try {
    const { features } = await helper.get<{ features: string[] }>("features");
    for (const vector of vectors()) {
      const lacking = vector.needs.filter((need) => !features.includes(need));
      const failed = lacking.length ? [] : await play(vector, helper);
      const why = lacking.length ? `: this build has no ${lacking.join(", ")}` : failed.length ? `: ${failed.join("; ")}` : "";
      const word = lacking.length ? "skip" : failed.length ? "fail" : "pass";
      results[vector.name] = word + why;
      console.log(`${word.toUpperCase()} ${vector.name}${why}`);
    }
  } finally {
    await helper.end();
  }
  const out = process.env["MLX_GRPC_CONFORMANCE_OUT"];
  if (out) writeFileSync(out, JSON.stringify({ client: "typescript", results }));
  return !Object.values(results).some((result) => String(result).startsWith("fail"));
}

process.exitCode = (await main()) ? 0 : 1;
