/** How to reach a server: credentials, retries, keepalive. */

import { credentials, Metadata, type ChannelCredentials, type ChannelOptions } from "@grpc/grpc-js";

/** This package's. */
export const VERSION = "0.1.0";

/** Where a server listens that was told nothing else. */
export const DEFAULT_TARGET = "localhost:50051";

const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;
/** A request larger than this is committed when it is sent, and never retried. */
const RETRY_BUFFER_BYTES = 4 * 1024 * 1024;

/** gRPC's own retries: never after the first message, never past the deadline, and not in a storm. */
const RETRIES = {
  methodConfig: [
    {
      name: [{}],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.2s",
        maxBackoff: "5s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
  retryThrottling: { maxTokens: 100, tokenRatio: 0.5 },
};

/** All may be absent: a server without TLS that wants no token. */
export interface ClientOptions {
  /** Encrypt, with Node's own roots unless `rootCertificates` are given. */
  tls?: boolean;
  /** The roots to trust (PEM). Implies `tls`. */
  rootCertificates?: string | Buffer;
  /** The client's own key and certificate (PEM), for mutual TLS: both or neither. They imply `tls`. */
  privateKey?: string | Buffer;
  certificateChain?: string | Buffer;
  /** Sent with every call as "authorization: Bearer ...". Without TLS it is readable on the way. */
  token?: string;
  /** The deadline of every call that names none. Default: none. */
  timeoutMs?: number;
  /** Retry calls that were refused before their first message. Default: true. */
  retry?: boolean;
  /** grpc-js's own options; they come last and win. */
  channelOptions?: ChannelOptions;
}

/** What may be said of one call. */
export interface CallOptions {
  /** The call's deadline, from now. */
  timeoutMs?: number;
  /** Cancels the call, here and in the server. */
  signal?: AbortSignal;
}

/** TLS or none. Throws a TypeError for options that contradict each other. */
export function channelCredentials(options: ClientOptions): ChannelCredentials {
  const { rootCertificates, privateKey, certificateChain } = options;
  if ((privateKey === undefined) !== (certificateChain === undefined)) {
    throw new TypeError("privateKey and certificateChain go together: give both or neither");
  }
  if (!options.tls && rootCertificates === undefined && privateKey === undefined) return credentials.createInsecure();
  return credentials.createSsl(pem(rootCertificates), pem(privateKey), pem(certificateChain));
}

/** What goes with each call. Throws a TypeError for a token that cannot be sent. */
export function callMetadata({ token }: ClientOptions): Metadata {
  const metadata = new Metadata();
  if (token !== undefined && !/^[ -~]*$/.test(token)) {
    throw new TypeError("token: only printable ASCII characters can be sent");
  }
  if (token) metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}

/** The defaults, with the caller's own options over them. */
export function channelOptions(options: ClientOptions): ChannelOptions {
  const retries: ChannelOptions =
    options.retry === false
      ? { "grpc.enable_retries": 0 }
      : { "grpc.service_config": JSON.stringify(RETRIES), "grpc.per_rpc_retry_buffer_size": RETRY_BUFFER_BYTES };
  return {
    "grpc.primary_user_agent": `mlx-grpc-typescript/${VERSION}`,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
    "grpc.max_send_message_length": -1, // the server has the limit and says which
    // What DNS says of retries is not asked for: it would take the place of ours.
    "grpc.service_config_disable_resolution": 1,
    ...retries,
    ...options.channelOptions,
  };
}

function pem(text: string | Buffer | undefined): Buffer | null {
  return text === undefined ? null : Buffer.from(text);
}
