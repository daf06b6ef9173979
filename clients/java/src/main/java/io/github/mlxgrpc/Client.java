package io.github.mlxgrpc;

import io.github.mlxgrpc.v1.Chat;
import io.github.mlxgrpc.v1.CountTokensRequest;
import io.github.mlxgrpc.v1.CountTokensResponse;
import io.github.mlxgrpc.v1.DetokenizeRequest;
import io.github.mlxgrpc.v1.DetokenizeResponse;
import io.github.mlxgrpc.v1.GenerateRequest;
import io.github.mlxgrpc.v1.GenerateResponse;
import io.github.mlxgrpc.v1.GetModelRequest;
import io.github.mlxgrpc.v1.GetServerInfoRequest;
import io.github.mlxgrpc.v1.GetServerInfoResponse;
import io.github.mlxgrpc.v1.InferenceServiceGrpc;
import io.github.mlxgrpc.v1.ListModelsRequest;
import io.github.mlxgrpc.v1.ListModelsResponse;
import io.github.mlxgrpc.v1.LoadModelRequest;
import io.github.mlxgrpc.v1.Message;
import io.github.mlxgrpc.v1.Model;
import io.github.mlxgrpc.v1.ModelServiceGrpc;
import io.github.mlxgrpc.v1.RenderChatRequest;
import io.github.mlxgrpc.v1.RenderChatResponse;
import io.github.mlxgrpc.v1.ServerServiceGrpc;
import io.github.mlxgrpc.v1.StreamGenerateResponse;
import io.github.mlxgrpc.v1.TokenizeRequest;
import io.github.mlxgrpc.v1.TokenizeResponse;
import io.github.mlxgrpc.v1.TokenizerServiceGrpc;
import io.github.mlxgrpc.v1.UnloadModelRequest;
import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.ClientCalls;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;

/**
 * A connection to an mlx_grpc server. Safe for any number of threads; it connects at its first call.
 *
 * <p>Calls that fail with UNAVAILABLE or RESOURCE_EXHAUSTED before their first message are tried again: four attempts in
 * all, 0.2 s, 0.4 s and 0.8 s apart, or as long as the server says; never past the deadline. Interrupting the thread that
 * waits for an answer cancels its call; the server then takes it out of the batch. Every failure is an {@link MlxGrpcError}.
 */
public final class Client implements AutoCloseable {
    /** Where a server listens unless told otherwise. */
    public static final String DEFAULT_TARGET = "localhost:50051";

    private static final long CLOSE_SECONDS = 5;

    private final ManagedChannel channel;
    private final Optional<Duration> timeout;

    Client(ManagedChannel channel, Optional<Duration> timeout) {
        this.channel = channel;
        this.timeout = timeout;
    }

    /** A client of the server on this machine's default port. */
    public static Client open() {
        return open(DEFAULT_TARGET, ClientOptions.DEFAULTS);
    }

    /** A client of the server at HOST:PORT. */
    public static Client open(String target) {
        return open(target, ClientOptions.DEFAULTS);
    }

    /** A client of the server at HOST:PORT, or another of gRPC's targets. */
    public static Client open(String target, ClientOptions options) {
        return new Client(Channels.open(target, options), options.timeout());
    }

    /** This client with another deadline for each call: {@code client.withTimeout(ofSeconds(5)).generate(request)}. */
    public Client withTimeout(Duration timeout) {
        return new Client(channel, Optional.of(timeout));
    }

    /** Generates and returns when all is done. */
    public GenerateResponse generate(GenerateRequest request) {
        return call(InferenceServiceGrpc.getGenerateMethod(), request);
    }

    /** Generates and gives the events as they come. Close the stream, or read it to its end. */
    public Stream stream(GenerateRequest request) {
        return Stream.start(channel, callOptions(), request);
    }

    /** As {@link #stream}, for these turns of a conversation. */
    public Stream chat(List<Message> messages) {
        return chat(messages, GenerateRequest.getDefaultInstance());
    }

    /** As {@link #stream}, for these turns of a conversation and all else as in {@code request}. */
    public Stream chat(List<Message> messages, GenerateRequest request) {
        Chat.Builder chat = request.getChat().toBuilder().clearMessages().addAllMessages(messages);
        return stream(request.toBuilder().setChat(chat).build());
    }

    /**
     * As {@link #stream}, for reactive code: each subscription is a call of its own, that begins with it, is read only as
     * fast as the subscriber asks, and is cancelled with it.
     */
    public Flow.Publisher<StreamGenerateResponse> publisher(GenerateRequest request) {
        return new EventPublisher(channel, this::callOptions, request);
    }

    /** Turns text or a conversation into token ids. */
    public TokenizeResponse tokenize(TokenizeRequest request) {
        return call(TokenizerServiceGrpc.getTokenizeMethod(), request);
    }

    /** Turns token ids into text. */
    public DetokenizeResponse detokenize(DetokenizeRequest request) {
        return call(TokenizerServiceGrpc.getDetokenizeMethod(), request);
    }

    /** Counts the tokens of a text or a conversation, as generation would. */
    public CountTokensResponse countTokens(CountTokensRequest request) {
        return call(TokenizerServiceGrpc.getCountTokensMethod(), request);
    }

    /** Renders a conversation with the model's chat template. */
    public RenderChatResponse renderChat(RenderChatRequest request) {
        return call(TokenizerServiceGrpc.getRenderChatMethod(), request);
    }

    /** All models that the server knows, page after page. */
    public List<Model> listModels() {
        List<Model> models = new ArrayList<>();
        ListModelsRequest.Builder request = ListModelsRequest.newBuilder();
        ListModelsResponse page;
        do {
            page = call(ModelServiceGrpc.getListModelsMethod(), request.build());
            models.addAll(page.getModelsList());
            request.setPageToken(page.getNextPageToken());
        } while (!page.getNextPageToken().isEmpty());
        return models;
    }

    /** What the server knows of a model; of its default one for "". */
    public Model getModel(String id) {
        GetModelRequest.Builder request = GetModelRequest.newBuilder();
        if (!id.isEmpty()) {
            request.setModel(id);
        }
        return call(ModelServiceGrpc.getGetModelMethod(), request.build()).getModel();
    }

    /** Starts to load a model and returns at once: poll {@link #getModel}. */
    public Model loadModel(String id) {
        LoadModelRequest request = LoadModelRequest.newBuilder().setModel(id).build();
        return call(ModelServiceGrpc.getLoadModelMethod(), request).getModel();
    }

    /** Lets a model finish its requests, or ends them when {@code force}; then frees its memory. Returns at once. */
    public Model unloadModel(String id, boolean force) {
        UnloadModelRequest request =
                UnloadModelRequest.newBuilder().setModel(id).setForce(force).build();
        return call(ModelServiceGrpc.getUnloadModelMethod(), request).getModel();
    }

    /** Versions, device, limits and features. */
    public GetServerInfoResponse serverInfo() {
        return call(ServerServiceGrpc.getGetServerInfoMethod(), GetServerInfoRequest.getDefaultInstance());
    }

    /** The health of the process (""), of a gRPC service or of {@code models/<id>}; SERVICE_UNKNOWN for any other. */
    public ServingStatus health(String service) {
        HealthCheckRequest request =
                HealthCheckRequest.newBuilder().setService(service).build();
        try {
            return call(HealthGrpc.getCheckMethod(), request).getStatus();
        } catch (MlxGrpcError.ModelNotFound error) {
            return ServingStatus.SERVICE_UNKNOWN;
        }
    }

    /** Cancels all calls and closes the connection, which clients of {@link #withTimeout} share. */
    @Override
    public void close() {
        channel.shutdownNow();
        try {
            channel.awaitTermination(CLOSE_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    private CallOptions callOptions() {
        return timeout.map(given -> CallOptions.DEFAULT.withDeadlineAfter(given.toNanos(), TimeUnit.NANOSECONDS))
                .orElse(CallOptions.DEFAULT);
    }

    private <Q, R> R call(MethodDescriptor<Q, R> method, Q request) {
        try {
            return ClientCalls.blockingUnaryCall(channel, method, callOptions(), request);
        } catch (StatusRuntimeException error) {
            throw Statuses.error(error);
        }
    }
}
