/** gRPC's statuses as the classes of errors.ts. */

import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, durationMs, type Any } from "@bufbuild/protobuf/wkt";
import { status, type Metadata, type ServiceError } from "@grpc/grpc-js";

import * as errors from "./errors.js";
import { BadRequestSchema, ErrorInfoSchema, ResourceInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";

type ErrorClass = new (message: string, facts: errors.ErrorFacts) => errors.MlxGrpcError;

/** What the server's ErrorInfo has; a proxy's own errors have another. */
const DOMAIN = "mlx_grpc";

/** Trailing metadata that become part of an error's, under a plain name. */
const TRAILING_KEYS = [["x-request-id", "request_id"], ["x-generation-id", "generation_id"]] as const;

const BY_REASON: Readonly<Record<string, ErrorClass>> = {
  INVALID_FIELD: errors.InvalidField,
  PROMPT_TOO_LONG: errors.PromptTooLong,
  NEVER_FITS: errors.NeverFits,
  UNSUPPORTED_FIELD: errors.UnsupportedField,
  MODEL_NOT_FOUND: errors.ModelNotFound,
  MODEL_FAILED: errors.ModelFailed,
  MODEL_LOADING: errors.ModelLoading,
  DRAINING: errors.Draining,
  QUEUE_FULL: errors.QueueFull,
  INTAKE_FULL: errors.IntakeFull,
  RATE_LIMITED: errors.RateLimited,
  SLOW_READER: errors.SlowReader,
  DEADLINE_UNREACHABLE: errors.DeadlineUnreachable,
  DEADLINE_PASSED: errors.DeadlinePassed,
  CANCELLED_BY_ADMIN: errors.CancelledByAdmin,
  NO_TOKEN: errors.NoToken,
  WRONG_SCOPE: errors.WrongScope,
  POISON_REQUEST: errors.PoisonRequest,
  NONFINITE_LOGITS: errors.NonfiniteLogits,
  INTERNAL: errors.InternalError,
};

const BY_CODE: Readonly<Record<string, ErrorClass>> = {
  INVALID_ARGUMENT: errors.InvalidField,
  NOT_FOUND: errors.ModelNotFound,
  FAILED_PRECONDITION: errors.ModelFailed,
  UNIMPLEMENTED: errors.UnsupportedField,
  UNAVAILABLE: errors.Unavailable,
  DEADLINE_EXCEEDED: errors.DeadlineExceeded,
  RESOURCE_EXHAUSTED: errors.ResourceExhausted,
  ABORTED: errors.CancelledByAdmin,
  UNAUTHENTICATED: errors.NoToken,
  PERMISSION_DENIED: errors.WrongScope,
  INTERNAL: errors.InternalError,
  CANCELLED: errors.Cancelled,
};

/** The error for one of gRPC's, its details decoded. The server's reason picks the class, and where there is none the code. */
export function fromServiceError(error: ServiceError): errors.MlxGrpcError {
  const code = status[error.code] ?? "UNKNOWN";
  const metadata = trailing(error.metadata);
  const facts: errors.ErrorFacts = { code, metadata, cause: error };
  for (const detail of details(error.metadata)) {
    const info = anyUnpack(detail, ErrorInfoSchema);
    if (info?.domain === DOMAIN) {
      facts.reason = info.reason;
      Object.assign(metadata, info.metadata);
    }
    const retry = anyUnpack(detail, RetryInfoSchema);
    if (retry) facts.retryAfterMs = retry.retryDelay ? durationMs(retry.retryDelay) : 0;
    const violation = anyUnpack(detail, BadRequestSchema)?.fieldViolations[0];
    if (violation) facts.field = violation.field;
    const resource = anyUnpack(detail, ResourceInfoSchema);
    if (resource) facts.resource = resource.resourceName;
  }
  const kind = BY_REASON[facts.reason ?? ""] ?? BY_CODE[code] ?? errors.MlxGrpcError;
  return new kind(error.details || code, facts);
}

function trailing(found: Metadata): Record<string, string> {
  const metadata: Record<string, string> = {};
  for (const [key, name] of TRAILING_KEYS) {
    const [value] = found.get(key);
    if (value !== undefined) metadata[name] = value.toString();
  }
  return metadata;
}

/** The details of google.rpc.Status; none from bytes that do not parse, since the status still holds. */
function details(found: Metadata): Any[] {
  const [packed] = found.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(packed)) return [];
  try {
    return fromBinary(StatusSchema, packed).details;
  } catch {
    return [];
  }
}
