package io.github.mlxgrpc;

import io.grpc.Status;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/**
 * A call that failed, as the server says it. One subclass for each reason, in one tree:
 *
 * <pre>
 * MlxGrpcError
 * ├── InvalidField            INVALID_ARGUMENT
 * │   ├── PromptTooLong
 * │   └── NeverFits
 * ├── UnsupportedField        UNIMPLEMENTED
 * ├── ModelNotFound           NOT_FOUND
 * ├── ModelFailed             FAILED_PRECONDITION
 * ├── Unavailable             UNAVAILABLE
 * │   ├── ModelLoading
 * │   └── Draining
 * ├── ResourceExhausted       RESOURCE_EXHAUSTED
 * ├── QueueFull               RESOURCE_EXHAUSTED
 * ├── IntakeFull              RESOURCE_EXHAUSTED
 * ├── RateLimited             RESOURCE_EXHAUSTED
 * ├── SlowReader              RESOURCE_EXHAUSTED
 * ├── DeadlineExceeded        DEADLINE_EXCEEDED
 * │   ├── DeadlineUnreachable
 * │   └── DeadlinePassed
 * ├── CancelledByAdmin        ABORTED
 * ├── NoToken                 UNAUTHENTICATED
 * ├── WrongScope              PERMISSION_DENIED
 * ├── PoisonRequest           INTERNAL
 * ├── NonfiniteLogits         INTERNAL
 * ├── InternalError           INTERNAL
 * └── Cancelled               CANCELLED
 * </pre>
 */
@SuppressWarnings("serial") // nobody stores these
public class MlxGrpcError extends RuntimeException {
    private final transient Facts facts;

    MlxGrpcError(Facts facts) {
        super(facts.message(), facts.cause());
        this.facts = facts;
    }

    /** The gRPC status. */
    public Status.Code code() {
        return facts.code();
    }

    /** The stable word that programs may compare; empty where gRPC itself made the status. */
    public String reason() {
        return facts.reason();
    }

    /** The path of the field at fault ({@code sampling.top_k}); empty where none is. */
    public String field() {
        return facts.field();
    }

    /** How long to wait before trying again; absent where the server named nothing. */
    public Optional<Duration> retryAfter() {
        return facts.retryAfter();
    }

    /** The name of what was not found; empty where nothing was looked for. */
    public String resource() {
        return facts.resource();
    }

    /** Further facts as text, among them {@code request_id} and {@code generation_id} once the server gave them. */
    public Map<String, String> metadata() {
        return facts.metadata();
    }

    /** What was decoded of a status. */
    record Facts(
            Status.Code code,
            String reason,
            String message,
            String field,
            Optional<Duration> retryAfter,
            String resource,
            Map<String, String> metadata,
            Throwable cause) {}

    /** A field holds what no request may hold; {@code field()} is its path. */
    public static class InvalidField extends MlxGrpcError {
        InvalidField(Facts facts) {
            super(facts);
        }
    }

    /** The prompt leaves no room in the model's context; metadata: {@code prompt_tokens}, {@code context_length}. */
    public static final class PromptTooLong extends InvalidField {
        PromptTooLong(Facts facts) {
            super(facts);
        }
    }

    /** The request needs more KV cache than the whole memory budget. */
    public static final class NeverFits extends InvalidField {
        NeverFits(Facts facts) {
            super(facts);
        }
    }

    /** A good field that this model or build cannot honour. */
    public static final class UnsupportedField extends MlxGrpcError {
        UnsupportedField(Facts facts) {
            super(facts);
        }
    }

    /** No such model here; {@code resource()} is its name. */
    public static final class ModelNotFound extends MlxGrpcError {
        ModelNotFound(Facts facts) {
            super(facts);
        }
    }

    /** The model could not be loaded, or its engine died too often. */
    public static final class ModelFailed extends MlxGrpcError {
        ModelFailed(Facts facts) {
            super(facts);
        }
    }

    /** Nobody can serve this now; trying again later, or elsewhere, may help. */
    public static class Unavailable extends MlxGrpcError {
        Unavailable(Facts facts) {
            super(facts);
        }
    }

    /** The model is loading, or its engine restarting. */
    public static final class ModelLoading extends Unavailable {
        ModelLoading(Facts facts) {
            super(facts);
        }
    }

    /** The server is going down. */
    public static final class Draining extends Unavailable {
        Draining(Facts facts) {
            super(facts);
        }
    }

    /** A limit of gRPC's own or of a proxy, such as a message that is too large. */
    public static final class ResourceExhausted extends MlxGrpcError {
        ResourceExhausted(Facts facts) {
            super(facts);
        }
    }

    /** The bounded queue has no place; {@code retryAfter()} comes from the measured rate. */
    public static final class QueueFull extends MlxGrpcError {
        QueueFull(Facts facts) {
            super(facts);
        }
    }

    /** Too many bytes were taken in and not yet answered, of all clients or of this connection. */
    public static final class IntakeFull extends MlxGrpcError {
        IntakeFull(Facts facts) {
            super(facts);
        }
    }

    /** This client has had its share of requests, tokens or places for now; {@code retryAfter()} says until when. */
    public static final class RateLimited extends MlxGrpcError {
        RateLimited(Facts facts) {
            super(facts);
        }
    }

    /** The client did not read its stream for too long. */
    public static final class SlowReader extends MlxGrpcError {
        SlowReader(Facts facts) {
            super(facts);
        }
    }

    /** The call's deadline ran out. */
    public static class DeadlineExceeded extends MlxGrpcError {
        DeadlineExceeded(Facts facts) {
            super(facts);
        }
    }

    /** By measured rates the first token cannot come before the deadline. */
    public static final class DeadlineUnreachable extends DeadlineExceeded {
        DeadlineUnreachable(Facts facts) {
            super(facts);
        }
    }

    /** The deadline ran out in the queue, in prefill or in decode. */
    public static final class DeadlinePassed extends DeadlineExceeded {
        DeadlinePassed(Facts facts) {
            super(facts);
        }
    }

    /** An operator ended the request. */
    public static final class CancelledByAdmin extends MlxGrpcError {
        CancelledByAdmin(Facts facts) {
            super(facts);
        }
    }

    /** No bearer token, or one that is not known. */
    public static final class NoToken extends MlxGrpcError {
        NoToken(Facts facts) {
            super(facts);
        }
    }

    /** The caller may not do this. */
    public static final class WrongScope extends MlxGrpcError {
        WrongScope(Facts facts) {
            super(facts);
        }
    }

    /** The request crashed the engine alone, twice. */
    public static final class PoisonRequest extends MlxGrpcError {
        PoisonRequest(Facts facts) {
            super(facts);
        }
    }

    /** The model's logits for this request are not finite: it cannot go on. Other requests were not touched. */
    public static final class NonfiniteLogits extends MlxGrpcError {
        NonfiniteLogits(Facts facts) {
            super(facts);
        }
    }

    /** A bug of the server's; metadata {@code error_id} is in its log. */
    public static final class InternalError extends MlxGrpcError {
        InternalError(Facts facts) {
            super(facts);
        }
    }

    /** The call was cancelled: by its thread's interruption, by its client's end, or by something on the way. */
    public static final class Cancelled extends MlxGrpcError {
        Cancelled(Facts facts) {
            super(facts);
        }
    }
}
