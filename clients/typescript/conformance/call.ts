/** A vector's calls through the client. */

import { create, fromJson, type DescMessage, type JsonValue, type MessageShape } from "@bufbuild/protobuf";
import { setTimeout as sleep } from "node:timers/promises";

import {
  Cancelled,
  CountTokensRequestSchema,
  CountTokensResponseSchema,
  DetokenizeRequestSchema,
  DetokenizeResponseSchema,
  GenerateRequestSchema,
  GetModelResponseSchema,
  GetServerInfoResponseSchema,
  ListModelsResponseSchema,
  RenderChatRequestSchema,
  RenderChatResponseSchema,
  TokenizeRequestSchema,
  TokenizeResponseSchema,
  type CallOptions,
  type Client,
  type Model,
} from "../src/index.js";
import { Outcome, plain } from "./outcome.js";
import type { CallStep, Facts } from "./vector.js";

const PATIENCE_MS = 60_000;

/** A call, running. */
export class Call {
  readonly name: string;
  readonly #step: CallStep;
  readonly #outcome = new Outcome();
  readonly #leave = new AbortController();
  readonly #run: Promise<void>;

  constructor(client: Client, step: CallStep) {
    this.name = step.name ?? step.call;
    this.#step = step;
    this.#run = this.#play(client).catch((error: unknown) => {
      if (error instanceof Cancelled && this.#leave.signal.aborted) this.#outcome.cancelled = true;
      else this.#outcome.failure = error;
    });
  }

  /** Cancels it as a user of the client would. */
  leave(): void {
    this.#leave.abort();
  }

  /** Waits for its end; what differs from what is expected. */
  async end(): Promise<string[]> {
    const late = AbortSignal.timeout(PATIENCE_MS);
    const lost = new Promise<string[]>((resolve) => late.addEventListener("abort", () => resolve(["still running"])));
    const lines = await Promise.race([this.#run.then(() => this.#outcome.differences(this.#step.expect ?? {})), lost]);
    return lines.map((line) => `${this.name}: ${line}`);
  }

  async #play(client: Client): Promise<void> {
    const options: CallOptions = { signal: this.#leave.signal };
    if (this.#step.deadline_ms !== undefined) options.timeoutMs = this.#step.deadline_ms;
    if (this.#step.call === "stream") return this.#read(client, options);
    if (this.#step.call === "generate") {
      return this.#outcome.take(await client.generate(parse(GenerateRequestSchema, this.#step.request), options));
    }
    const method = METHODS[this.#step.call];
    if (!method) throw new Error(`no such call: ${this.#step.call}`);
    this.#outcome.response = await method(client, this.#step.request ?? {}, options);
  }

  async #read(client: Client, options: CallOptions): Promise<void> {
    const { read_delay: delay, cancel_after_deltas: most } = this.#step;
    let deltas = 0;
    for await (const event of client.stream(parse(GenerateRequestSchema, this.#step.request), options)) {
      this.#outcome.add(event);
      if (event.event.case !== "delta") continue;
      deltas += 1;
      if (delay && deltas % delay.every === 0) await sleep(delay.ms);
      if (deltas === most) {
        this.#outcome.cancelled = true;
        break;
      }
    }
  }
}

const METHODS: Record<string, (client: Client, request: Facts, options: CallOptions) => Promise<Facts>> = {
  tokenize: async (client, request, options) =>
    plain(TokenizeResponseSchema, await client.tokenize(parse(TokenizeRequestSchema, request), options)),
  detokenize: async (client, request, options) =>
    plain(DetokenizeResponseSchema, await client.detokenize(parse(DetokenizeRequestSchema, request), options)),
  count_tokens: async (client, request, options) =>
    plain(CountTokensResponseSchema, await client.countTokens(parse(CountTokensRequestSchema, request), options)),
  render_chat: async (client, request, options) =>
    plain(RenderChatResponseSchema, await client.renderChat(parse(RenderChatRequestSchema, request), options)),
  list_models: async (client, _, options) =>
    plain(ListModelsResponseSchema, create(ListModelsResponseSchema, { models: await client.listModels(options) })),
  get_model: async (client, request, options) => one(await client.getModel(id(request), options)),
  load_model: async (client, request, options) => one(await client.loadModel(id(request), options)),
  unload_model: async (client, request, options) => one(await client.unloadModel(id(request), options)),
  server_info: async (client, _, options) => plain(GetServerInfoResponseSchema, await client.serverInfo(options)),
  health: async (client, request, options) => ({ status: await client.health(String(request["service"] ?? ""), options) }),
};

function parse<S extends DescMessage>(schema: S, request: Facts = {}): MessageShape<S> {
  return fromJson(schema, request as JsonValue);
}

function id(request: Facts): string {
  return String(request["model"] ?? "");
}

function one(model: Model): Facts {
  return plain(GetModelResponseSchema, create(GetModelResponseSchema, { model }));
}
