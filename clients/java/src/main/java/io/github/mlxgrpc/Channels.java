package io.github.mlxgrpc;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** Makes the connection that a {@link Client} owns. */
final class Channels {
    static final String VERSION = "0.1.0";
    private static final int MAX_RESPONSE_BYTES = 64 << 20;
    // A request larger than this is never tried again; gRPC's own 1 MiB is less than the prompts that the server takes.
    private static final int RETRY_BUFFER_BYTES = 4 << 20;
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private Channels() {}

    static ManagedChannel open(String target, ClientOptions options) {
        return configure(Grpc.newChannelBuilder(target, credentials(options)), options).build();
    }

    /** All that does not depend on the transport. */
    static ManagedChannelBuilder<?> configure(ManagedChannelBuilder<?> builder, ClientOptions options) {
        builder.userAgent("mlx-grpc-java/" + VERSION)
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .maxInboundMessageSize(MAX_RESPONSE_BYTES)
                .disableServiceConfigLookUp();
        if (options.retry()) {
            builder.enableRetry()
                    .defaultServiceConfig(serviceConfig())
                    .perRpcBufferLimit(RETRY_BUFFER_BYTES)
                    .retryBufferSize(4L * RETRY_BUFFER_BYTES);
        } else {
            builder.disableRetry();
        }
        options.token().ifPresent(token -> {
            Metadata headers = new Metadata();
            headers.put(AUTHORIZATION, "Bearer " + token);
            builder.intercept(MetadataUtils.newAttachHeadersInterceptor(headers));
        });
        return builder;
    }

    /** The retries that {@link Client} promises, in gRPC's own words; numbers must be doubles. */
    static Map<String, ?> serviceConfig() {
        Map<String, ?> policy = Map.of(
                "maxAttempts", 4.0,
                "initialBackoff", "0.2s",
                "maxBackoff", "5s",
                "backoffMultiplier", 2.0,
                "retryableStatusCodes", List.of("UNAVAILABLE", "RESOURCE_EXHAUSTED"));
        return Map.of(
                "methodConfig", List.of(Map.of("name", List.of(Map.of()), "retryPolicy", policy)),
                "retryThrottling", Map.of("maxTokens", 100.0, "tokenRatio", 0.5));
    }

    private static ChannelCredentials credentials(ClientOptions options) {
        if (!options.tls()) {
            return InsecureChannelCredentials.create();
        }
        TlsChannelCredentials.Builder builder = TlsChannelCredentials.newBuilder();
        try {
            if (options.rootCertificates().isPresent()) {
                builder.trustManager(stream(options.rootCertificates().get()));
            }
            if (options.privateKey().isPresent()) {
                builder.keyManager(
                        stream(options.certificateChain().orElseThrow()),
                        stream(PrivateKeys.toPkcs8(options.privateKey().get())));
            }
        } catch (IOException error) {
            throw new IllegalArgumentException("a certificate or key does not parse: " + error.getMessage(), error);
        }
        return builder.build();
    }

    private static InputStream stream(String pem) {
        return new ByteArrayInputStream(pem.getBytes(StandardCharsets.UTF_8));
    }
}
