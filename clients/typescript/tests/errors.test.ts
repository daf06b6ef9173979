import { status } from "@grpc/grpc-js";
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";

import * as mlx from "../src/index.js";
import { refusal, refusing, sending, type Details } from "./server.js";

async function failWith(t: TestContext, code: status, details?: Details): Promise<mlx.MlxGrpcError> {
  const client = await refusing(1, refusal(code, details)).open(t, { retry: false });
  const error: unknown = await client.generate(mlx.prompt("x")).catch((caught: unknown) => caught);
  assert.ok(error instanceof mlx.MlxGrpcError);
  return error;
}

const REASONS = {
  INVALID_FIELD: [mlx.InvalidField],
  PROMPT_TOO_LONG: [mlx.PromptTooLong, mlx.InvalidField],
  NEVER_FITS: [mlx.NeverFits, mlx.InvalidField],
  UNSUPPORTED_FIELD: [mlx.UnsupportedField],
  MODEL_NOT_FOUND: [mlx.ModelNotFound],
  MODEL_FAILED: [mlx.ModelFailed],
  MODEL_LOADING: [mlx.ModelLoading, mlx.Unavailable],
  DRAINING: [mlx.Draining, mlx.Unavailable],
  QUEUE_FULL: [mlx.QueueFull],
  INTAKE_FULL: [mlx.IntakeFull],
  RATE_LIMITED: [mlx.RateLimited],
  SLOW_READER: [mlx.SlowReader],
  DEADLINE_UNREACHABLE: [mlx.DeadlineUnreachable, mlx.DeadlineExceeded],
  DEADLINE_PASSED: [mlx.DeadlinePassed, mlx.DeadlineExceeded],
  CANCELLED_BY_ADMIN: [mlx.CancelledByAdmin],
  NO_TOKEN: [mlx.NoToken],
  WRONG_SCOPE: [mlx.WrongScope],
  POISON_REQUEST: [mlx.PoisonRequest],
  NONFINITE_LOGITS: [mlx.NonfiniteLogits],
  INTERNAL: [mlx.InternalError],
};

for (const [reason, kinds] of Object.entries(REASONS)) {
  test(`reason ${reason} is a ${kinds[0]?.name}`, async (t) => {
    const error = await failWith(t, status.UNKNOWN, { info: { reason, domain: "mlx_grpc", metadata: { a: "b" } } });
    for (const kind of kinds) assert.ok(error instanceof kind);
    assert.equal(error.name, kinds[0]?.name);
    assert.equal(error.reason, reason);
    assert.equal(error.metadata["a"], "b");
  });
}

const CODES = {
  INVALID_ARGUMENT: mlx.InvalidField,
  NOT_FOUND: mlx.ModelNotFound,
  FAILED_PRECONDITION: mlx.ModelFailed,
  UNIMPLEMENTED: mlx.UnsupportedField,
  UNAVAILABLE: mlx.Unavailable,
  DEADLINE_EXCEEDED: mlx.DeadlineExceeded,
  RESOURCE_EXHAUSTED: mlx.ResourceExhausted,
  ABORTED: mlx.CancelledByAdmin,
  UNAUTHENTICATED: mlx.NoToken,
  PERMISSION_DENIED: mlx.WrongScope,
  INTERNAL: mlx.InternalError,
  CANCELLED: mlx.Cancelled,
  DATA_LOSS: mlx.MlxGrpcError,
};

for (const [code, kind] of Object.entries(CODES)) {
  test(`code ${code}, without a reason of the server's, is a ${kind.name}`, async (t) => {
    const foreign = { info: { reason: "QUEUE_FULL", domain: "a proxy" } };
    const error = await failWith(t, status[code as keyof typeof status], foreign);
    assert.equal(error.constructor, kind);
    assert.deepEqual([error.code, error.reason, error.message], [code, "", "no"]);
  });
}

test("a reason that this version does not know is kept, and the code picks the class", async (t) => {
  const error = await failWith(t, status.UNAVAILABLE, { info: { reason: "MOONLIGHT", domain: "mlx_grpc" } });
  assert.equal(error.constructor, mlx.Unavailable);
  assert.equal(error.reason, "MOONLIGHT");
});

test("field, time to wait and resource come from the details", async (t) => {
  const error = await failWith(t, status.NOT_FOUND, {
    retry: { retryDelay: { seconds: 1n, nanos: 500_000_000 } },
    request: { fieldViolations: [{ field: "sampling.top_p" }, { field: "other" }] },
    resource: { resourceName: "none" },
  });
  assert.deepEqual([error.field, error.retryAfterMs, error.resource], ["sampling.top_p", 1500, "none"]);
});

test("a deadline that this side sees is DeadlineExceeded", async (t) => {
  const client = await sending().open(t);
  await assert.rejects(client.generate(mlx.prompt("x"), { timeoutMs: -1 }), mlx.DeadlineExceeded);
});
