/** What a call gave, and whether that is what a vector expects. */

import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";

import {
  CompletedEventSchema,
  FinishReasonSchema,
  type FinishReason,
  GenerateResponseSchema,
  MlxGrpcError,
  StartedEventSchema,
  TokenLogprobSchema,
  type GenerateResponse,
  type StopDetail,
  type StreamGenerateResponse,
  type TokenLogprob,
} from "../src/index.js";
import type { Facts, Json } from "./vector.js";

const LOGPROB_TOLERANCE = 0.001;

/** A message as proto JSON, the empty fields among them. */
export function plain<S extends DescMessage>(schema: S, message: MessageShape<S>): Facts {
  return toJson(schema, message, { alwaysEmitImplicit: true }) as Facts;
}

export class Outcome {
  cancelled = false;
  failure: unknown;
  response: Json = null;
  readonly #events: string[] = [];
  #text = "";
  readonly #tokenIds: number[] = [];
  readonly #logprobs: Json[] = [];
  #finishReason: Json = "";
  #stop: StopDetail["stop"] = { case: undefined };
  #started: Json = null;
  #usage: Json = null;

  /** Takes an event of a stream. */
  add({ event }: StreamGenerateResponse): void {
    if (event.case === undefined) return;
    if (this.#events.at(-1) !== event.case) this.#events.push(event.case);
    if (event.case === "started") this.#started = plain(StartedEventSchema, event.value);
    if (event.case === "delta") this.#add(event.value);
    if (event.case === "finished") this.#finish(event.value);
    if (event.case === "completed") this.#usage = plain(CompletedEventSchema, event.value)["usage"] ?? null;
  }

  /** Takes the answer of `generate`. */
  take(answer: GenerateResponse): void {
    const [candidate] = answer.candidates;
    if (!candidate) return;
    this.#add(candidate);
    this.#finish(candidate);
    this.#started = plain(GenerateResponseSchema, answer);
    this.#usage = this.#started["usage"] ?? null;
  }

  #add({ text, tokenIds, logprobs }: { text: string; tokenIds: number[]; logprobs: TokenLogprob[] }): void {
    this.#text += text;
    this.#tokenIds.push(...tokenIds);
    this.#logprobs.push(...logprobs.map((one) => plain(TokenLogprobSchema, one)));
  }

  #finish({ finishReason, stopDetail }: { finishReason: FinishReason; stopDetail?: StopDetail | undefined }): void {
    this.#finishReason = FinishReasonSchema.value[finishReason].name;
    this.#stop = stopDetail?.stop ?? { case: undefined };
  }

  /** One line for each key of what is expected that does not hold. */
  differences(expect: Facts): string[] {
    if (this.failure && !(this.failure instanceof MlxGrpcError)) return [`the runner: ${String(this.failure)}`];
    if (this.failure && !expect["error"]) return [`failed: ${String(this.failure)}`];
    const lines = this.cancelled === (expect["cancelled"] ?? false) ? [] : [`cancelled is ${this.cancelled}`];
    for (const [key, wanted] of Object.entries(expect)) {
      if (key === "cancelled") continue;
      if (key === "error") lines.push(...errorDifferences(wanted as Facts, this.failure));
      else if (key === "text_starts_with") {
        if (!this.#text.startsWith(String(wanted))) lines.push(`text is ${this.#text}`);
      } else if (!alike(wanted, this.#value(key))) {
        lines.push(`${key} is ${JSON.stringify(this.#value(key))}, not ${JSON.stringify(wanted)}`);
      }
    }
    return lines;
  }

  #value(key: string): Json {
    const values: Facts = {
      events: this.#events,
      text: this.#text,
      text_characters: [...this.#text].length,
      token_ids: this.#tokenIds,
      token_ids_count: this.#tokenIds.length,
      token_ids_sum: this.#tokenIds.reduce((sum, id) => sum + id, 0),
      logprobs: this.#logprobs,
      finish_reason: this.#finishReason,
      stop_string: this.#stop.case === "stopString" ? this.#stop.value : "",
      stop_token_id: this.#stop.case === "stopTokenId" ? this.#stop.value : null,
      started: this.#started,
      usage: this.#usage,
      response: this.response,
    };
    return values[key] ?? null;
  }
}

/** Objects hold what is wanted of them, lists are as long and hold it item by item, log-probabilities are near. */
function alike(wanted: Json, found: Json | undefined): boolean {
  if (Array.isArray(wanted)) {
    return Array.isArray(found) && found.length === wanted.length && wanted.every((one, index) => alike(one, found[index]));
  }
  if (wanted === null || typeof wanted !== "object") return wanted === found;
  if (found === null || typeof found !== "object" || Array.isArray(found)) return false;
  return Object.entries(wanted).every(([key, value]) =>
    key === "logprob" ? Math.abs(Number(value) - Number(found[key])) <= LOGPROB_TOLERANCE : alike(value, found[key]),
  );
}

function errorDifferences(wanted: Facts, error: unknown): string[] {
  if (!(error instanceof MlxGrpcError)) return [`ended well; expected ${JSON.stringify(wanted)}`];
  const found: Facts = {
    code: error.code,
    reason: error.reason,
    field: error.field,
    resource: error.resource,
    retry_after: (error.retryAfterMs ?? 0) > 0,
  };
  const holds = (key: string, value: Json): boolean => {
    if (key === "type") return kinds(error).includes(String(value));
    if (key === "message_has") return error.message.includes(String(value));
    if (key === "metadata") return alike(value, error.metadata);
    if (key === "metadata_keys") return (value as string[]).every((name) => name in error.metadata);
    return alike(value, found[key]);
  };
  return Object.entries(wanted)
    .filter(([key, value]) => !holds(key, value))
    .map(([key, value]) => `error.${key} is not ${JSON.stringify(value)}: ${error.name} ${error.code} ${error.message}`);
}

/** The names of an error's class and of all that it extends. */
function kinds(error: object): string[] {
  const names: string[] = [];
  for (let one: object | null = Object.getPrototypeOf(error) as object; one; one = Object.getPrototypeOf(one) as object | null) {
    names.push(one.constructor.name);
  }
  return names;
}
