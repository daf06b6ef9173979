import { status } from "@grpc/grpc-js";
import assert from "node:assert/strict";
import { test } from "node:test";

import * as mlx from "../src/index.js";
import { COMPLETED, refusal, refusing, ScriptedServer, sending } from "./server.js";

const SOON = { "grpc-retry-pushback-ms": "1" };

for (const code of [status.UNAVAILABLE, status.RESOURCE_EXHAUSTED]) {
  test(`calls that are refused with ${status[code]} are tried again, as soon as the server says`, async (t) => {
    const server = refusing(3, refusal(code, {}, SOON));
    const client = await server.open(t);
    assert.equal((await client.generate(mlx.prompt("x"))).model, "m");
    assert.equal(server.calls.length, 4);
  });
}

test("four attempts are all", async (t) => {
  const server = refusing(9, refusal(status.UNAVAILABLE, {}, SOON));
  const client = await server.open(t);
  await assert.rejects(client.generate(mlx.prompt("x")), mlx.Unavailable);
  assert.equal(server.calls.length, 4);
});

for (const [name, error, options] of [
  ["the server forbids it", refusal(status.UNAVAILABLE, {}, { "grpc-retry-pushback-ms": "-1" }), {}],
  ["the code is another", refusal(status.INTERNAL), {}],
  ["retry is false", refusal(status.UNAVAILABLE), { retry: false }],
] as const) {
  test(`nothing is tried again where ${name}`, async (t) => {
    const server = refusing(1, error);
    const client = await server.open(t, options);
    await assert.rejects(client.generate(mlx.prompt("x")), mlx.MlxGrpcError);
    assert.equal(server.calls.length, 1);
  });
}

test("the server learns who calls: a user agent with a version, and the token", async (t) => {
  const server = refusing(0, {});
  const client = await server.open(t, { token: "secret" });
  await client.generate(mlx.prompt("x"));
  const headers = server.calls[0]?.headers;
  assert.match(String(headers?.get("user-agent")[0]), new RegExp(`^mlx-grpc-typescript/${mlx.VERSION} grpc-node-js/`));
  assert.deepEqual(headers?.get("authorization"), ["Bearer secret"]);
});

test("timeoutMs is the deadline of calls that name none, and a call's own holds", async (t) => {
  const server = new ScriptedServer({
    generate: () => ({}),
    stream: (call) => {
      call.write(COMPLETED);
      call.end();
    },
  });
  const hour = 3_600_000;
  const client = await server.open(t, { timeoutMs: hour });
  for (const options of [{}, { timeoutMs: 3 * hour }]) {
    await client.generate(mlx.prompt("x"), options);
    await client.stream(mlx.prompt("x"), options).result();
  }
  const hours = server.calls.map(({ deadline }) => Math.round((Number(deadline) - Date.now()) / hour));
  assert.deepEqual(hours, [1, 1, 3, 3]);
});

test("listModels asks page after page, and gives all that each model says of itself", async (t) => {
  const server = new ScriptedServer({
    list: ({ pageToken }) =>
      pageToken
        ? { models: [{ id: pageToken, batching: mlx.Batching.ALONE }] }
        : { models: [{ id: "a" }], nextPageToken: "more" },
  });
  const client = await server.open(t);
  const found = (await client.listModels()).map(({ id, batching }) => [id, mlx.Batching[batching]]);
  assert.deepEqual(found, [["a", "UNSPECIFIED"], ["more", "ALONE"]]);
});

test("health of a service that the server does not know is an answer, not an error", async (t) => {
  const client = await sending().open(t);
  assert.equal(await client.health(), "SERVING");
  assert.equal(await client.health("models/none"), "SERVICE_UNKNOWN");
});

test("options that contradict each other are refused when the client is made", () => {
  assert.throws(() => new mlx.Client("x", { privateKey: "x" }), TypeError);
  assert.throws(() => new mlx.Client("x", { certificateChain: "x" }), TypeError);
  assert.throws(() => new mlx.Client("x", { token: "a\nb" }), TypeError);
});
