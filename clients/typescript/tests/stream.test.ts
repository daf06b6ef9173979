import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import assert from "node:assert/strict";
import { once } from "node:events";
import { EventEmitter } from "node:events";
import { test } from "node:test";

import * as mlx from "../src/index.js";
import { COMPLETED, delta, FINISHED, refusal, ScriptedServer, sending, STARTED } from "./server.js";

/** Sends one delta and no end; `left` is emitted when its client has gone. */
function endless(): { server: ScriptedServer; left: Promise<unknown> } {
  const watch = new EventEmitter();
  const server = new ScriptedServer({
    stream: (call) => {
      call.write(delta("x"));
      call.on("cancelled", () => watch.emit("left"));
    },
  });
  return { server, left: once(watch, "left") };
}

async function all(stream: AsyncIterable<unknown>): Promise<unknown[]> {
  const found = [];
  for await (const one of stream) found.push(one);
  return found;
}

test("text gives the pieces of text, without events that have none", async (t) => {
  const client = await sending(STARTED, delta("one"), delta("", 7), delta(" two"), FINISHED, COMPLETED).open(t);
  assert.deepEqual(await all(client.stream(mlx.prompt("count")).text()), ["one", " two"]);
});

test("result is what generate would have answered, what was read before included", async (t) => {
  const client = await sending(STARTED, delta("a", 1), delta("b", 2, 3), FINISHED, COMPLETED).open(t);
  const stream = client.stream(mlx.prompt("count"));
  await stream.next();
  await stream.next();
  assert.deepEqual(
    await stream.result(),
    create(mlx.GenerateResponseSchema, {
      generationId: "g",
      requestId: "r",
      model: "m",
      seed: 2n ** 60n,
      candidates: [{ text: "ab", tokenIds: [1, 2, 3], finishReason: mlx.FinishReason.STOP }],
      usage: { completionTokens: 3 },
    }),
  );
});

test("an event of a later version is passed over", async (t) => {
  const client = await sending(STARTED, { event: { case: undefined } }, COMPLETED).open(t);
  assert.equal((await all(client.stream(mlx.prompt("count")))).length, 2);
});

test("leaving the loop reaches the server", async (t) => {
  const { server, left } = endless();
  const client = await server.open(t);
  const stream = client.stream(mlx.prompt("go on"));
  for await (const text of stream.text()) {
    assert.equal(text, "x");
    break;
  }
  await left;
  await assert.rejects(stream.result(), mlx.Cancelled);
});

test("close ends a loop that waits", async (t) => {
  const { server, left } = endless();
  const client = await server.open(t);
  const stream = client.stream(mlx.prompt("go on"));
  await stream.next();
  const rest = all(stream);
  stream.close();
  assert.deepEqual(await rest, []);
  await left;
});

test("a signal that is aborted reaches the server and the reader that waits", async (t) => {
  const { server, left } = endless();
  const client = await server.open(t);
  const leave = new AbortController();
  const stream = client.stream(mlx.prompt("go on"), { signal: leave.signal });
  await stream.next();
  const rest = all(stream);
  leave.abort("enough");
  await assert.rejects(rest, (error) => error instanceof mlx.Cancelled && error.code === "CANCELLED" && error.cause === "enough");
  await left;
});

test("a signal that was aborted before starts nothing", async (t) => {
  const { server } = endless();
  const client = await server.open(t);
  await assert.rejects(client.stream(mlx.prompt("go on"), { signal: AbortSignal.abort() }).result(), mlx.Cancelled);
  await assert.rejects(client.generate(mlx.prompt("go on"), { signal: AbortSignal.abort() }), mlx.Cancelled);
  assert.equal(server.calls.length, 0);
});

test("closing the client ends its streams", async (t) => {
  const { server, left } = endless();
  const client = await server.open(t);
  const stream = client.stream(mlx.prompt("go on"));
  await stream.next();
  const rest = all(stream);
  client.close();
  await assert.rejects(rest, mlx.Cancelled);
  await left;
});

test("a failure comes after all that was sent before it, however slowly that is read", async (t) => {
  const texts = Array.from({ length: 100 }, (_, index) => `${index} `);
  const server = new ScriptedServer({
    stream: (call) => {
      for (const text of texts) call.write(delta(text));
      call.emit("error", refusal(status.UNAVAILABLE, { info: { reason: "DRAINING", domain: "mlx_grpc" } }, { "x-request-id": "mine" }));
    },
  });
  const client = await server.open(t);
  const found: string[] = [];
  await assert.rejects(
    async () => {
      for await (const text of client.stream(mlx.prompt("go on")).text()) {
        found.push(text);
        await new Promise(setImmediate);
      }
    },
    (error) => error instanceof mlx.Draining && error.metadata["request_id"] === "mine",
  );
  assert.deepEqual(found, texts);
  assert.equal(server.calls.length, 1, "nothing is tried again after the first message");
});

test("a stream that fails unread harms nobody", async (t) => {
  const server = new ScriptedServer({ stream: (call) => call.emit("error", refusal(status.INTERNAL)) });
  const client = await server.open(t);
  const stream = client.stream(mlx.prompt("go on"));
  await assert.rejects(client.stream(mlx.prompt("go on")).result(), mlx.InternalError);
  await assert.rejects(stream.result(), mlx.InternalError);
});

test("chat fills in the messages and leaves the request that it was given alone", async (t) => {
  const seen: mlx.GenerateRequest[] = [];
  const server = new ScriptedServer({
    stream: (call) => {
      seen.push(call.request);
      call.write(COMPLETED);
      call.end();
    },
  });
  const client = await server.open(t);
  const given = create(mlx.GenerateRequestSchema, { stop: { maxTokens: 3 }, input: { case: "chat", value: { templateArgsJson: "{}" } } });
  const messages = [mlx.system("Be brief."), mlx.user("Hello?"), mlx.assistant("Hi.")];
  await client.chat(messages, given).result();
  await client.chat(messages).result();
  const [first, second] = seen;
  assert.equal(first?.stop?.maxTokens, 3);
  assert.equal(first.input.case === "chat" && first.input.value.templateArgsJson, "{}");
  assert.equal(second?.input.case === "chat" && second.input.value.messages[1]?.content[0]?.part.value, "Hello?");
  assert.equal(given.input.case === "chat" && given.input.value.messages.length, 0);
});
