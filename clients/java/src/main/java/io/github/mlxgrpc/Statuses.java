package io.github.mlxgrpc;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.ResourceInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;

/**
 * gRPC statuses as the classes of {@link MlxGrpcError}.
 *
 * <p>A status of the server carries google.rpc.Status details: its ErrorInfo's reason picks the class. One that gRPC made
 * itself (nobody there, a deadline seen on this side, a message too large) has none: its code picks the nearest class.
 */
final class Statuses {
    private static final String DOMAIN = "mlx_grpc";
    private static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
    private static final Map<String, Metadata.Key<String>> TRAILING = Map.of(
            "request_id", Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER),
            "generation_id", Metadata.Key.of("x-generation-id", Metadata.ASCII_STRING_MARSHALLER));

    private static final Map<String, Function<MlxGrpcError.Facts, MlxGrpcError>> BY_REASON = Map.ofEntries(
            Map.entry("INVALID_FIELD", MlxGrpcError.InvalidField::new),
            Map.entry("PROMPT_TOO_LONG", MlxGrpcError.PromptTooLong::new),
            Map.entry("NEVER_FITS", MlxGrpcError.NeverFits::new),
            Map.entry("UNSUPPORTED_FIELD", MlxGrpcError.UnsupportedField::new),
            Map.entry("MODEL_NOT_FOUND", MlxGrpcError.ModelNotFound::new),
            Map.entry("MODEL_FAILED", MlxGrpcError.ModelFailed::new),
            Map.entry("MODEL_LOADING", MlxGrpcError.ModelLoading::new),
            Map.entry("DRAINING", MlxGrpcError.Draining::new),
            Map.entry("QUEUE_FULL", MlxGrpcError.QueueFull::new),
            Map.entry("INTAKE_FULL", MlxGrpcError.IntakeFull::new),
            Map.entry("RATE_LIMITED", MlxGrpcError.RateLimited::new),
            Map.entry("SLOW_READER", MlxGrpcError.SlowReader::new),
            Map.entry("DEADLINE_UNREACHABLE", MlxGrpcError.DeadlineUnreachable::new),
            Map.entry("DEADLINE_PASSED", MlxGrpcError.DeadlinePassed::new),
            Map.entry("CANCELLED_BY_ADMIN", MlxGrpcError.CancelledByAdmin::new),
            Map.entry("NO_TOKEN", MlxGrpcError.NoToken::new),
            Map.entry("WRONG_SCOPE", MlxGrpcError.WrongScope::new),
            Map.entry("POISON_REQUEST", MlxGrpcError.PoisonRequest::new),
            Map.entry("NONFINITE_LOGITS", MlxGrpcError.NonfiniteLogits::new),
            Map.entry("INTERNAL", MlxGrpcError.InternalError::new));

    private Statuses() {}

    static MlxGrpcError error(StatusRuntimeException exception) {
        return error(exception.getStatus(), exception.getTrailers(), exception);
    }

    static MlxGrpcError error(Status status, Metadata trailers, Throwable cause) {
        Metadata pairs = trailers == null ? new Metadata() : trailers;
        Details details = new Details();
        details.metadata.putAll(known(pairs));
        details.read(pairs.get(DETAILS));
        MlxGrpcError.Facts facts = new MlxGrpcError.Facts(
                status.getCode(),
                details.reason,
                message(status),
                details.field,
                details.retryAfter,
                details.resource,
                Map.copyOf(details.metadata),
                cause == null ? status.getCause() : cause);
        return BY_REASON.getOrDefault(details.reason, byCode(status.getCode())).apply(facts);
    }

    /** The status's own words; where gRPC made it of an exception, that one's too ("Connection refused: …"). */
    private static String message(Status status) {
        String message = Optional.ofNullable(status.getDescription()).orElse(status.getCode().name());
        return status.getCause() == null ? message : message + ": " + status.getCause().getMessage();
    }

    private static Function<MlxGrpcError.Facts, MlxGrpcError> byCode(Status.Code code) {
        return switch (code) {
            case CANCELLED -> MlxGrpcError.Cancelled::new;
            case INVALID_ARGUMENT -> MlxGrpcError.InvalidField::new;
            case NOT_FOUND -> MlxGrpcError.ModelNotFound::new;
            case FAILED_PRECONDITION -> MlxGrpcError.ModelFailed::new;
            case UNIMPLEMENTED -> MlxGrpcError.UnsupportedField::new;
            case UNAVAILABLE -> MlxGrpcError.Unavailable::new;
            case DEADLINE_EXCEEDED -> MlxGrpcError.DeadlineExceeded::new;
            case RESOURCE_EXHAUSTED -> MlxGrpcError.ResourceExhausted::new;
            case ABORTED -> MlxGrpcError.CancelledByAdmin::new;
            case UNAUTHENTICATED -> MlxGrpcError.NoToken::new;
            case PERMISSION_DENIED -> MlxGrpcError.WrongScope::new;
            case INTERNAL -> MlxGrpcError.InternalError::new;
            default -> MlxGrpcError::new;
        };
    }

    private static Map<String, String> known(Metadata trailers) {
        Map<String, String> found = new LinkedHashMap<>();
        TRAILING.forEach((name, key) -> {
            String value = trailers.get(key);
            if (value != null) {
                found.put(name, value);
            }
        });
        return found;
    }

    /** What a google.rpc.Status says beyond code and message. */
    private static final class Details {
        private String reason = "";
        private String field = "";
        private String resource = "";
        private Optional<Duration> retryAfter = Optional.empty();
        private final Map<String, String> metadata = new LinkedHashMap<>();

        /** Takes what parses: where bytes are bad, the status still holds. */
        void read(byte[] packed) {
            if (packed == null) {
                return;
            }
            try {
                List<Any> all = com.google.rpc.Status.parseFrom(packed).getDetailsList();
                for (Any detail : all) {
                    take(detail);
                }
            } catch (InvalidProtocolBufferException error) {
                return;
            }
        }

        private void take(Any detail) throws InvalidProtocolBufferException {
            if (detail.is(ErrorInfo.class)) {
                ErrorInfo info = detail.unpack(ErrorInfo.class);
                if (info.getDomain().equals(DOMAIN)) {
                    reason = info.getReason();
                    metadata.putAll(info.getMetadataMap());
                }
            } else if (detail.is(RetryInfo.class)) {
                com.google.protobuf.Duration delay =
                        detail.unpack(RetryInfo.class).getRetryDelay();
                retryAfter = Optional.of(Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
            } else if (detail.is(BadRequest.class)) {
                BadRequest request = detail.unpack(BadRequest.class);
                field = request.getFieldViolationsCount() > 0
                        ? request.getFieldViolations(0).getField()
                        : "";
            } else if (detail.is(ResourceInfo.class)) {
                resource = detail.unpack(ResourceInfo.class).getResourceName();
            }
        }
    }
}
