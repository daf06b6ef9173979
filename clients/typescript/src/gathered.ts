/** A stream's events, put together to what `generate` would have answered. */

import { create } from "@bufbuild/protobuf";

import {
  CandidateSchema,
  GenerateResponseSchema,
  type Candidate,
  type CompletedEvent,
  type GenerateResponse,
  type StartedEvent,
  type StreamGenerateResponse,
} from "./gen/mlx_grpc/v1/inference_service_pb.js";

export class Gathered {
  #started: StartedEvent | undefined;
  #completed: CompletedEvent | undefined;
  readonly #candidates = new Map<number, Candidate>();

  add({ event }: StreamGenerateResponse): void {
    if (event.case === "started") this.#started = event.value;
    if (event.case === "completed") this.#completed = event.value;
    if (event.case === "delta") {
      const candidate = this.#candidate(event.value.index);
      candidate.text += event.value.text;
      for (const id of event.value.tokenIds) candidate.tokenIds.push(id);
      for (const logprob of event.value.logprobs) candidate.logprobs.push(logprob);
    }
    if (event.case === "finished") {
      const candidate = this.#candidate(event.value.index);
      candidate.finishReason = event.value.finishReason;
      if (event.value.stopDetail) candidate.stopDetail = event.value.stopDetail;
    }
  }

  /** All of it; undefined when the end has not come. */
  response(): GenerateResponse | undefined {
    if (!this.#completed) return undefined;
    const { generationId = "", requestId = "", model = "", seed = 0n } = this.#started ?? {};
    const candidates = [...this.#candidates.values()].sort((a, b) => a.index - b.index);
    const { usage, timings } = this.#completed;
    const response = create(GenerateResponseSchema, { generationId, requestId, model, seed, candidates });
    if (usage) response.usage = usage;
    if (timings) response.timings = timings;
    return response;
  }

  #candidate(index: number): Candidate {
    let candidate = this.#candidates.get(index);
    if (!candidate) {
      candidate = create(CandidateSchema, { index });
      this.#candidates.set(index, candidate);
    }
    return candidate;
  }
}
