/** A server's stream of messages, read one by one. */

import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";

import { fromServiceError } from "./status.js";

/**
 * When so many wait to be read, nothing more is taken from the connection: a slow reader slows the server down. Not fewer,
 * since grpc-js throws away what it still holds when the call fails.
 */
const READ_AHEAD_MESSAGES = 1024;

/** Owns a call. One reader at a time. */
export class Incoming<T> {
  readonly #call: ClientReadableStream<T>;
  #messages: T[] = [];
  #next = 0;
  #failure: unknown;
  #ended = false;
  #wake: () => void = () => {};

  constructor(call: ClientReadableStream<T>) {
    this.#call = call;
    call.on("data", (message: T) => {
      this.#messages.push(message);
      if (this.#messages.length >= READ_AHEAD_MESSAGES) call.pause();
      this.#wake();
    });
    // gRPC tells of the error before it has given all messages; "end" comes after the last one.
    call.on("error", (error: ServiceError) => (this.#failure ??= fromServiceError(error)));
    call.on("end", () => this.#end());
  }

  /** The next message, undefined at the end. Throws the call's failure, once, after all messages that came before it. */
  async next(): Promise<T | undefined> {
    while (this.#next === this.#messages.length) {
      this.#messages = [];
      this.#next = 0;
      if (this.#ended) {
        const failure = this.#failure;
        this.#failure = undefined;
        if (failure) throw failure;
        return undefined;
      }
      const arrival = new Promise<void>((resolve) => (this.#wake = resolve));
      this.#call.resume();
      await arrival;
    }
    return this.#messages[this.#next++];
  }

  /** Cancels the call if it still runs. With a failure, that is what the reader gets; without one it is at the end. */
  close(failure?: Error): void {
    if (this.#ended) return;
    this.#failure = failure;
    this.#messages = [];
    this.#next = 0;
    this.#end();
    this.#call.removeAllListeners("data").resume();
    this.#call.cancel();
  }

  #end(): void {
    this.#ended = true;
    this.#wake();
  }
}
