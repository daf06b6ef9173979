/** A running generation. */

import { Cancelled } from "./errors.js";
import { Gathered } from "./gathered.js";
import type { GenerateResponse, StreamGenerateResponse } from "./gen/mlx_grpc/v1/inference_service_pb.js";
import type { Incoming } from "./incoming.js";

type Next = IteratorResult<StreamGenerateResponse, undefined>;

const END: Next = { done: true, value: undefined };

/**
 * An asynchronous iterator of events, without those that this version does not know. Leaving a loop over it cancels the call.
 * It throws an MlxGrpcError when the call fails.
 */
export class Stream implements AsyncIterableIterator<StreamGenerateResponse, undefined> {
  readonly #incoming: Incoming<StreamGenerateResponse>;
  readonly #gathered = new Gathered();
  readonly #ended: () => void;

  /** @internal */
  constructor(incoming: Incoming<StreamGenerateResponse>, ended: () => void) {
    this.#incoming = incoming;
    this.#ended = ended;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next event. */
  async next(): Promise<Next> {
    try {
      let event = await this.#incoming.next();
      while (event && event.event.case === undefined) event = await this.#incoming.next();
      if (event) {
        this.#gathered.add(event);
        return { done: false, value: event };
      }
    } catch (error) {
      this.#ended();
      throw error;
    }
    this.#ended();
    return END;
  }

  /** What leaving a loop calls. */
  async return(): Promise<Next> {
    this.close();
    return END;
  }

  /** The pieces of text alone. */
  async *text(): AsyncGenerator<string, void, undefined> {
    for await (const { event } of this) {
      if (event.case === "delta" && event.value.text) yield event.value.text;
    }
  }

  /** Reads to the end and gives all of it, what was read before included, as `generate` would. */
  async result(): Promise<GenerateResponse> {
    while (!(await this.next()).done);
    const response = this.#gathered.response();
    if (!response) throw new Cancelled("the stream was closed before its end", { code: "CANCELLED" });
    return response;
  }

  /** Cancels the call if it still runs; the server then takes its row out of the batch. A loop that waits ends. */
  close(): void {
    this.#incoming.close();
    this.#ended();
  }
}
