package io.github.mlxgrpc.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import io.github.mlxgrpc.MlxGrpcError;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** Whether an outcome is what a vector expects. */
final class Differences {
    private static final double LOGPROB_TOLERANCE = 0.001;

    private Differences() {}

    /** One line for each key of {@code expect} that does not hold. */
    static List<String> of(JsonObject expect, Outcome found) {
        List<String> lines = new ArrayList<>();
        if (found.error != null && !expect.has("error") && !found.cancelled) {
            return List.of("failed: " + found.error);
        }
        if (found.cancelled != expect.has("cancelled")) {
            lines.add("cancelled is " + found.cancelled);
        }
        for (Map.Entry<String, JsonElement> entry : expect.entrySet()) {
            JsonElement wanted = entry.getValue();
            switch (entry.getKey()) {
                case "error" -> lines.addAll(ofError(wanted.getAsJsonObject(), found.error));
                case "text_starts_with" -> {
                    if (!found.value("text").getAsString().startsWith(wanted.getAsString())) {
                        lines.add("text is " + found.value("text"));
                    }
                }
                default -> {
                    if (!alike(wanted, found.value(entry.getKey()), false)) {
                        lines.add(entry.getKey() + " is " + found.value(entry.getKey()) + ", not " + wanted);
                    }
                }
            }
        }
        return lines;
    }

    /** Objects hold what is wanted of them, lists are as long and hold it item by item, log-probabilities are near. */
    static boolean alike(JsonElement wanted, JsonElement found, boolean near) {
        if (wanted instanceof JsonObject object) {
            return found instanceof JsonObject other
                    && object.entrySet().stream()
                            .allMatch(entry -> other.has(entry.getKey())
                                    && alike(
                                            entry.getValue(),
                                            other.get(entry.getKey()),
                                            entry.getKey().equals("logprob")));
        }
        if (wanted instanceof JsonArray list) {
            if (!(found instanceof JsonArray other) || list.size() != other.size()) {
                return false;
            }
            for (int at = 0; at < list.size(); at++) {
                if (!alike(list.get(at), other.get(at), false)) {
                    return false;
                }
            }
            return true;
        }
        if (wanted instanceof JsonPrimitive one && one.isNumber() && found instanceof JsonPrimitive other) {
            return other.isNumber()
                    && Math.abs(one.getAsDouble() - other.getAsDouble()) <= (near ? LOGPROB_TOLERANCE : 0);
        }
        return Objects.equals(wanted, found);
    }

    private static List<String> ofError(JsonObject expect, MlxGrpcError error) {
        if (error == null) {
            return List.of("ended well; expected " + expect);
        }
        List<String> lines = new ArrayList<>();
        expect.entrySet().forEach(entry -> {
            if (!holds(entry.getKey(), entry.getValue(), error)) {
                lines.add("error's " + entry.getKey() + " is not " + entry.getValue() + ": " + error + " "
                        + error.metadata());
            }
        });
        return lines;
    }

    private static boolean holds(String key, JsonElement wanted, MlxGrpcError error) {
        return switch (key) {
            case "type" -> isA(error.getClass(), wanted.getAsString());
            case "code" -> error.code().name().equals(wanted.getAsString());
            case "reason" -> error.reason().equals(wanted.getAsString());
            case "field" -> error.field().equals(wanted.getAsString());
            case "resource" -> error.resource().equals(wanted.getAsString());
            case "message_has" -> error.getMessage().contains(wanted.getAsString());
            case "retry_after" -> error.retryAfter().filter(delay -> !delay.isZero()).isPresent()
                    == wanted.getAsBoolean();
            case "metadata" -> wanted.getAsJsonObject().entrySet().stream()
                    .allMatch(entry -> entry.getValue()
                            .getAsString()
                            .equals(error.metadata().get(entry.getKey())));
            case "metadata_keys" -> wanted.getAsJsonArray().asList().stream()
                    .allMatch(name -> error.metadata().containsKey(name.getAsString()));
            default -> throw new IllegalArgumentException("unknown expectation of an error: " + key);
        };
    }

    private static boolean isA(Class<?> type, String name) {
        return type != null && (type.getSimpleName().equals(name) || isA(type.getSuperclass(), name));
    }
}
