package io.github.mlxgrpc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.ResourceInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class StatusesTest {
    private static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

    /** The reason picks the class; everything that the details say is kept. */
    @Test
    void detailsAreDecoded() {
        MlxGrpcError error = decode(Status.INVALID_ARGUMENT, details("PROMPT_TOO_LONG", "mlx_grpc"));
        assertInstanceOf(MlxGrpcError.PromptTooLong.class, error);
        assertInstanceOf(MlxGrpcError.InvalidField.class, error);
        assertEquals("sampling.top_k", error.field());
        assertEquals("none", error.resource());
        assertEquals(Optional.of(Duration.ofMillis(1500)), error.retryAfter());
        assertEquals("32", error.metadata().get("limit"));
        assertEquals("mine", error.metadata().get("request_id"));
    }

    /** Logits that are not finite have a class of their own beside InternalError, which has the same code. */
    @Test
    void reasonsOfOneCodeAreToldApart() {
        MlxGrpcError error = decode(Status.INTERNAL, details("NONFINITE_LOGITS", "mlx_grpc"));
        assertEquals(MlxGrpcError.NonfiniteLogits.class, error.getClass());
        assertEquals(Status.Code.INTERNAL, error.code());
    }

    /** Another service's reasons are not ours. */
    @Test
    void anotherDomainIsPassedOver() {
        MlxGrpcError error = decode(Status.INVALID_ARGUMENT, details("PROMPT_TOO_LONG", "example.com"));
        assertEquals(MlxGrpcError.InvalidField.class, error.getClass());
        assertEquals("", error.reason());
    }

    /** A reason of a newer server is kept; the code picks the class. */
    @Test
    void anUnknownReasonIsKept() {
        MlxGrpcError error = decode(Status.UNAVAILABLE, details("NEW_REASON", "mlx_grpc"));
        assertEquals(MlxGrpcError.Unavailable.class, error.getClass());
        assertEquals("NEW_REASON", error.reason());
    }

    /** Details that do not parse leave the status. */
    @Test
    void badDetailsLeaveTheStatus() {
        MlxGrpcError error = decode(Status.ABORTED.withDescription("no"), new byte[] {-1, -1});
        assertEquals(MlxGrpcError.CancelledByAdmin.class, error.getClass());
        assertEquals("no", error.getMessage());
    }

    /** A code that nothing is named for is an error all the same. */
    @Test
    void anyCodeIsAnError() {
        assertEquals(MlxGrpcError.class, Statuses.error(Status.DATA_LOSS, null, null).getClass());
    }

    private static MlxGrpcError decode(Status status, byte[] details) {
        Metadata trailers = new Metadata();
        trailers.put(DETAILS, details);
        trailers.put(Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER), "mine");
        return Statuses.error(status, trailers, null);
    }

    private static byte[] details(String reason, String domain) {
        ErrorInfo.Builder info = ErrorInfo.newBuilder().setReason(reason).setDomain(domain).putMetadata("limit", "32");
        RetryInfo.Builder retry = RetryInfo.newBuilder();
        retry.getRetryDelayBuilder().setSeconds(1).setNanos(500_000_000);
        BadRequest.Builder bad = BadRequest.newBuilder();
        bad.addFieldViolationsBuilder().setField("sampling.top_k");
        return com.google.rpc.Status.newBuilder()
                .addDetails(Any.pack(info.build()))
                .addDetails(Any.pack(retry.build()))
                .addDetails(Any.pack(bad.build()))
                .addDetails(Any.pack(ResourceInfo.newBuilder().setResourceName("none").build()))
                .build()
                .toByteArray();
    }
}
