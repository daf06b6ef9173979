package io.github.mlxgrpc.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;
import io.github.mlxgrpc.MlxGrpcError;
import io.github.mlxgrpc.v1.FinishReason;
import io.github.mlxgrpc.v1.GenerateResponse;
import io.github.mlxgrpc.v1.StopDetail;
import io.github.mlxgrpc.v1.StreamGenerateResponse;
import io.github.mlxgrpc.v1.TokenLogprob;
import java.util.List;
import java.util.Locale;

/** What was read of a call, whether it ended well or not. */
final class Outcome {
    private static final JsonFormat.Printer PRINTER =
            JsonFormat.printer().alwaysPrintFieldsWithNoPresence();

    volatile boolean cancelled;
    MlxGrpcError error;
    JsonElement response = JsonNull.INSTANCE;
    private final JsonArray events = new JsonArray();
    private final StringBuilder text = new StringBuilder();
    private final JsonArray tokenIds = new JsonArray();
    private final JsonArray logprobs = new JsonArray();
    private JsonElement started = JsonNull.INSTANCE;
    private JsonElement usage = JsonNull.INSTANCE;
    private String finishReason = "";
    private StopDetail stop = StopDetail.getDefaultInstance();

    void add(StreamGenerateResponse event) {
        JsonElement kind = new JsonPrimitive(event.getEventCase().name().toLowerCase(Locale.ROOT));
        if (events.isEmpty() || !events.get(events.size() - 1).equals(kind)) {
            events.add(kind);
        }
        switch (event.getEventCase()) {
            case STARTED -> started = json(event.getStarted());
            case DELTA -> addText(
                    event.getDelta().getText(),
                    event.getDelta().getTokenIdsList(),
                    event.getDelta().getLogprobsList());
            case FINISHED -> finish(
                    event.getFinished().getFinishReason(), event.getFinished().getStopDetail());
            case COMPLETED -> usage = json(event.getCompleted().getUsage());
            default -> {}
        }
    }

    void add(GenerateResponse answer) {
        addText(
                answer.getCandidates(0).getText(),
                answer.getCandidates(0).getTokenIdsList(),
                answer.getCandidates(0).getLogprobsList());
        finish(answer.getCandidates(0).getFinishReason(), answer.getCandidates(0).getStopDetail());
        started = json(answer);
        usage = json(answer.getUsage());
    }

    /** What an expectation's key is about. */
    JsonElement value(String key) {
        return switch (key) {
            case "events" -> events;
            case "text" -> new JsonPrimitive(text.toString());
            case "text_characters" -> new JsonPrimitive(text.codePoints().count());
            case "token_ids" -> tokenIds;
            case "token_ids_count" -> new JsonPrimitive(tokenIds.size());
            case "token_ids_sum" -> new JsonPrimitive(tokenIds.asList().stream()
                    .mapToLong(JsonElement::getAsLong)
                    .sum());
            case "logprobs" -> logprobs;
            case "finish_reason" -> new JsonPrimitive(finishReason);
            case "stop_string" -> new JsonPrimitive(stop.getStopString());
            case "stop_token_id" -> new JsonPrimitive(stop.getStopTokenId());
            case "started" -> started;
            case "usage" -> usage;
            case "response" -> response;
            case "cancelled" -> new JsonPrimitive(cancelled);
            default -> throw new IllegalArgumentException("unknown expectation: " + key);
        };
    }

    static JsonElement json(MessageOrBuilder message) {
        try {
            return JsonParser.parseString(PRINTER.print(message));
        } catch (InvalidProtocolBufferException error) {
            throw new IllegalStateException(error);
        }
    }

    static JsonObject object(String key, JsonElement value) {
        JsonObject object = new JsonObject();
        object.add(key, value);
        return object;
    }

    private void addText(String more, List<Integer> ids, List<TokenLogprob> odds) {
        text.append(more);
        ids.forEach(tokenIds::add);
        odds.forEach(one -> logprobs.add(json(one)));
    }

    private void finish(FinishReason reason, StopDetail detail) {
        finishReason = reason.name();
        stop = detail;
    }
}
