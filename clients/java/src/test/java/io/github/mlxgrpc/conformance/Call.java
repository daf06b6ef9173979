package io.github.mlxgrpc.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import io.github.mlxgrpc.Client;
import io.github.mlxgrpc.MlxGrpcError;
import io.github.mlxgrpc.Stream;
import io.github.mlxgrpc.v1.CountTokensRequest;
import io.github.mlxgrpc.v1.DetokenizeRequest;
import io.github.mlxgrpc.v1.GenerateRequest;
import io.github.mlxgrpc.v1.RenderChatRequest;
import io.github.mlxgrpc.v1.StreamGenerateResponse;
import io.github.mlxgrpc.v1.TokenizeRequest;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/** A call of a vector: its thread, what it expects and what it gave. */
final class Call {
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private final JsonObject step;
    private final Client client;
    private final Outcome outcome = new Outcome();
    private final Thread thread;
    private final Optional<Stream> stream;
    private volatile Throwable broken;

    Call(Client client, JsonObject step) {
        this.step = step;
        this.client =
                step.has("deadline_ms") ? client.withTimeout(Duration.ofMillis(number("deadline_ms"))) : client;
        // A stream is opened here, so that it can be left at once.
        stream = method().equals("stream")
                ? Optional.of(this.client.stream(read(GenerateRequest.newBuilder())))
                : Optional.empty();
        thread = new Thread(this::run, "call " + name());
        thread.start();
    }

    String name() {
        return step.has("name") ? step.get("name").getAsString() : method();
    }

    /** Leave it as a user of the client would. */
    void leave() {
        outcome.cancelled = true;
        stream.ifPresentOrElse(Stream::close, thread::interrupt);
    }

    /** Waits for its end; what differs from what is expected. */
    List<String> end() throws InterruptedException {
        thread.join(PATIENCE.toMillis());
        if (thread.isAlive()) {
            leave();
            return List.of(name() + ": still running after " + PATIENCE);
        }
        if (broken != null) {
            return List.of(name() + ": the runner broke: " + broken);
        }
        JsonObject expect = step.has("expect") ? step.getAsJsonObject("expect") : new JsonObject();
        return Differences.of(expect, outcome).stream()
                .map(line -> name() + ": " + line)
                .toList();
    }

    private void run() {
        try {
            if (stream.isPresent()) {
                readStream(stream.get());
            } else if (method().equals("generate")) {
                outcome.add(client.generate(read(GenerateRequest.newBuilder())));
            } else {
                outcome.response = respond();
            }
        } catch (MlxGrpcError error) {
            outcome.error = error;
        } catch (InterruptedException | RuntimeException error) {
            broken = error;
        }
    }

    private void readStream(Stream events) throws InterruptedException {
        int deltas = 0;
        for (StreamGenerateResponse event : events) {
            outcome.add(event);
            if (!event.hasDelta()) {
                continue;
            }
            deltas++;
            if (step.has("read_delay")) {
                JsonObject delay = step.getAsJsonObject("read_delay");
                if (deltas % delay.get("every").getAsInt() == 0) {
                    Thread.sleep(delay.get("ms").getAsLong());
                }
            }
            if (step.has("cancel_after_deltas") && deltas == number("cancel_after_deltas")) {
                leave();
            }
        }
    }

    private JsonElement respond() {
        return switch (method()) {
            case "tokenize" -> Outcome.json(client.tokenize(read(TokenizeRequest.newBuilder())));
            case "detokenize" -> Outcome.json(client.detokenize(read(DetokenizeRequest.newBuilder())));
            case "count_tokens" -> Outcome.json(client.countTokens(read(CountTokensRequest.newBuilder())));
            case "render_chat" -> Outcome.json(client.renderChat(read(RenderChatRequest.newBuilder())));
            case "list_models" -> {
                JsonArray models = new JsonArray();
                client.listModels().forEach(model -> models.add(Outcome.json(model)));
                yield Outcome.object("models", models);
            }
            case "get_model" -> Outcome.object("model", Outcome.json(client.getModel(text("model"))));
            case "load_model" -> Outcome.object("model", Outcome.json(client.loadModel(text("model"))));
            case "unload_model" -> Outcome.object(
                    "model", Outcome.json(client.unloadModel(text("model"), request().has("force"))));
            case "server_info" -> Outcome.json(client.serverInfo());
            case "health" -> Outcome.object(
                    "status", new JsonPrimitive(client.health(text("service")).name()));
            default -> throw new IllegalArgumentException("unknown method: " + method());
        };
    }

    private String method() {
        return step.get("call").getAsString();
    }

    private JsonObject request() {
        return step.has("request") ? step.getAsJsonObject("request") : new JsonObject();
    }

    private String text(String field) {
        return request().has(field) ? request().get(field).getAsString() : "";
    }

    private int number(String key) {
        return step.get(key).getAsInt();
    }

    /** The step's request, of the message that the builder builds. */
    @SuppressWarnings("unchecked")
    private <M extends Message> M read(Message.Builder builder) {
        try {
            JsonFormat.parser().merge(request().toString(), builder);
            return (M) builder.build();
        } catch (InvalidProtocolBufferException error) {
            throw new IllegalArgumentException(error);
        }
    }
}
