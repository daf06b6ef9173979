/** grpc-js driven by protobuf-es's descriptors: deadlines, cancellation, errors. */

import { create, fromBinary, toBinary, type DescMessage, type DescMethod, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import type { DescMethodServerStreaming, DescMethodUnary } from "@bufbuild/protobuf";
import { Client as Channel, type CallOptions as GrpcCallOptions, type ServiceError } from "@grpc/grpc-js";

import { Cancelled } from "./errors.js";
import { Incoming } from "./incoming.js";
import { callMetadata, channelCredentials, channelOptions, type CallOptions, type ClientOptions } from "./options.js";
import { fromServiceError } from "./status.js";

/** A channel, and the calls that run on it. */
export class Calls {
  readonly #channel: Channel;
  readonly #metadata;
  readonly #timeoutMs: number | undefined;
  readonly #running = new Set<(reason: Error) => void>();

  constructor(target: string, options: ClientOptions) {
    this.#metadata = callMetadata(options);
    this.#timeoutMs = options.timeoutMs;
    this.#channel = new Channel(target, channelCredentials(options), channelOptions(options));
  }

  /** A call that is answered once. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      if (options.signal?.aborted) return reject(cancelled(options.signal.reason));
      const call = this.#channel.makeUnaryRequest(
        path(method),
        (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
        (bytes) => fromBinary(method.output, bytes),
        create(method.input, request),
        this.#metadata,
        this.#options(options),
        (error: ServiceError | null, answer?: MessageShape<O>) => {
          forget();
          if (error) reject(fromServiceError(error));
          else resolve(answer!);
        },
      );
      const forget = this.#watch(options.signal, (reason) => {
        reject(reason);
        call.cancel();
      });
    });
  }

  /** A call that is answered by a stream; `ended` is to be called when it has been read. */
  serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions,
  ): { incoming: Incoming<MessageShape<O>>; ended: () => void } {
    const incoming = new Incoming(
      this.#channel.makeServerStreamRequest(
        path(method),
        (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
        (bytes) => fromBinary(method.output, bytes),
        create(method.input, request),
        this.#metadata,
        this.#options(options),
      ),
    );
    const ended = this.#watch(options.signal, (reason) => incoming.close(reason));
    if (options.signal?.aborted) incoming.close(cancelled(options.signal.reason));
    return { incoming, ended };
  }

  /** Cancels what still runs and closes the channel. */
  close(): void {
    for (const leave of this.#running) leave(cancelled(undefined, "the client was closed"));
    this.#running.clear();
    this.#channel.close();
  }

  #options({ timeoutMs = this.#timeoutMs }: CallOptions): GrpcCallOptions {
    return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
  }

  /** Calls `leave` when the signal is aborted or the client closed, until the function that it returns is called. */
  #watch(signal: AbortSignal | undefined, leave: (reason: Error) => void): () => void {
    const aborted = () => {
      forget();
      leave(cancelled(signal?.reason));
    };
    const forget = () => {
      signal?.removeEventListener("abort", aborted);
      this.#running.delete(leave);
    };
    signal?.addEventListener("abort", aborted);
    this.#running.add(leave);
    return forget;
  }
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function cancelled(cause: unknown, message = "the call was cancelled"): Cancelled {
  return new Cancelled(message, { code: "CANCELLED", cause });
}
