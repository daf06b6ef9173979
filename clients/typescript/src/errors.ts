/** Every way a call can fail: one class for each reason, under MlxGrpcError. */

/** What is known of a failure beside its message. */
export interface ErrorFacts {
  code?: string;
  reason?: string;
  field?: string;
  retryAfterMs?: number | undefined;
  resource?: string;
  metadata?: Readonly<Record<string, string>>;
  cause?: unknown;
}

/** The base of all. */
export class MlxGrpcError extends Error {
  override name = "MlxGrpcError";
  /** The gRPC status, "RESOURCE_EXHAUSTED". */
  readonly code: string;
  /** The server's stable word, "QUEUE_FULL". Empty where gRPC itself made the status. */
  readonly reason: string;
  /** The path of the field at fault, "sampling.top_p". */
  readonly field: string;
  /** When to come again; undefined where the server named no time. */
  readonly retryAfterMs: number | undefined;
  /** The name of what was not found. */
  readonly resource: string;
  /** Further facts, such as prompt_tokens, and the call's request_id and generation_id. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(message: string, facts: ErrorFacts = {}) {
    super(message, "cause" in facts ? { cause: facts.cause } : undefined);
    this.code = facts.code ?? "UNKNOWN";
    this.reason = facts.reason ?? "";
    this.field = facts.field ?? "";
    this.retryAfterMs = facts.retryAfterMs;
    this.resource = facts.resource ?? "";
    this.metadata = facts.metadata ?? {};
  }
}

/** A field holds what no request may hold; `field` names it. */
export class InvalidField extends MlxGrpcError {
  override name = "InvalidField";
}

/** The prompt leaves no room in the model's context. */
export class PromptTooLong extends InvalidField {
  override name = "PromptTooLong";
}

/** The request needs more memory than there is for all. */
export class NeverFits extends InvalidField {
  override name = "NeverFits";
}

/** A good field that this model or server cannot honour. */
export class UnsupportedField extends MlxGrpcError {
  override name = "UnsupportedField";
}

/** No such model; `resource` names it. */
export class ModelNotFound extends MlxGrpcError {
  override name = "ModelNotFound";
}

/** The model could not be loaded, or its engine died too often. */
export class ModelFailed extends MlxGrpcError {
  override name = "ModelFailed";
}

/** Nobody can serve this now. */
export class Unavailable extends MlxGrpcError {
  override name = "Unavailable";
}

/** The model is loading, or its engine restarting. */
export class ModelLoading extends Unavailable {
  override name = "ModelLoading";
}

/** The server is about to stop. */
export class Draining extends Unavailable {
  override name = "Draining";
}

/** A limit of gRPC's own or of a proxy, such as a message that is too large. */
export class ResourceExhausted extends MlxGrpcError {
  override name = "ResourceExhausted";
}

/** Too many requests wait; `retryAfterMs` says when to come again. */
export class QueueFull extends MlxGrpcError {
  override name = "QueueFull";
}

/** Too many bytes were taken in and not yet answered, of all clients or of this connection. */
export class IntakeFull extends MlxGrpcError {
  override name = "IntakeFull";
}

/** This client has had its share of requests, tokens or places for now; `retryAfterMs` says when to come again. */
export class RateLimited extends MlxGrpcError {
  override name = "RateLimited";
}

/** The stream was not read for too long. */
export class SlowReader extends MlxGrpcError {
  override name = "SlowReader";
}

/** The deadline ran out. */
export class DeadlineExceeded extends MlxGrpcError {
  override name = "DeadlineExceeded";
}

/** The first token cannot come in time. */
export class DeadlineUnreachable extends DeadlineExceeded {
  override name = "DeadlineUnreachable";
}

/** The deadline ran out in the queue, in prefill or in decode. */
export class DeadlinePassed extends DeadlineExceeded {
  override name = "DeadlinePassed";
}

/** An operator ended the request. */
export class CancelledByAdmin extends MlxGrpcError {
  override name = "CancelledByAdmin";
}

/** The token is missing or unknown. */
export class NoToken extends MlxGrpcError {
  override name = "NoToken";
}

/** The caller may not do this. */
export class WrongScope extends MlxGrpcError {
  override name = "WrongScope";
}

/** The request crashed the engine, alone, twice. */
export class PoisonRequest extends MlxGrpcError {
  override name = "PoisonRequest";
}

/** The model's logits for this request are not finite: it cannot go on. Other requests were not touched. */
export class NonfiniteLogits extends MlxGrpcError {
  override name = "NonfiniteLogits";
}

/** A bug of the server's; metadata error_id is in its log. */
export class InternalError extends MlxGrpcError {
  override name = "InternalError";
}

/** This side left the call, or something on the way ended it. */
export class Cancelled extends MlxGrpcError {
  override name = "Cancelled";
}
