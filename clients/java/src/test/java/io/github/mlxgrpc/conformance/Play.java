package io.github.mlxgrpc.conformance;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import io.github.mlxgrpc.Client;
import io.github.mlxgrpc.ClientOptions;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** One vector, while it is played. */
final class Play {
    private final HelperProgram helper;
    private final Client client;
    private final Map<String, Call> background = new LinkedHashMap<>();
    private final List<String> differences = new ArrayList<>();

    private Play(HelperProgram helper, Client client) {
        this.helper = helper;
        this.client = client;
    }

    /** What differs. */
    static List<String> vector(JsonObject vector, HelperProgram helper) throws IOException, InterruptedException {
        JsonObject facts = helper.post("server", vector.getAsJsonObject("server"));
        ClientOptions options = options(vector.getAsJsonObject("client"), facts);
        try (Client client = Client.open(facts.get("grpc").getAsString(), options)) {
            Play play = new Play(helper, client);
            for (JsonElement step : vector.getAsJsonArray("steps")) {
                play.step(step.getAsJsonObject());
            }
            for (Call call : play.background.values()) {
                play.differences.addAll(call.end());
            }
            return play.differences;
        }
    }

    private static ClientOptions options(JsonObject given, JsonObject facts) {
        ClientOptions options = ClientOptions.DEFAULTS;
        if (given.has("token")) {
            options = options.token(given.get("token").getAsString());
        }
        if (given.has("tls")) {
            options = options.rootCertificates(facts.get("root_certificates").getAsString());
        }
        if (given.has("mutual_tls")) {
            options = options.identity(
                    facts.get("private_key").getAsString(),
                    facts.get("certificate_chain").getAsString());
        }
        return given.has("retry") && !given.get("retry").getAsBoolean() ? options.withoutRetries() : options;
    }

    private void step(JsonObject step) throws IOException, InterruptedException {
        if (step.has("call")) {
            Call call = new Call(client, step);
            if (step.has("background")) {
                background.put(call.name(), call);
            } else {
                differences.addAll(call.end());
            }
        } else if (step.has("control")) {
            JsonObject body = step.has("body") ? step.getAsJsonObject("body") : new JsonObject();
            helper.post(step.get("control").getAsString(), body);
        } else if (step.has("wait")) {
            JsonObject body = step.deepCopy();
            body.add("for", body.remove("wait"));
            helper.post("wait", body);
        } else if (step.has("cancel")) {
            background.get(step.get("cancel").getAsString()).leave();
        } else if (step.has("join")) {
            differences.addAll(background.remove(step.get("join").getAsString()).end());
        } else {
            look(step.getAsJsonObject("state"));
        }
    }

    private void look(JsonObject expect) throws IOException {
        JsonObject state = helper.get("state");
        expect.entrySet().forEach(entry -> {
            long found = state.get(entry.getKey()).getAsLong();
            if (!within(entry.getValue(), found)) {
                differences.add(entry.getKey() + " is " + found + ", not " + entry.getValue());
            }
        });
    }

    private static boolean within(JsonElement wanted, long found) {
        if (wanted instanceof JsonPrimitive exactly) {
            return found == exactly.getAsLong();
        }
        JsonObject bounds = wanted.getAsJsonObject();
        return (!bounds.has("at_most") || found <= bounds.get("at_most").getAsLong())
                && (!bounds.has("at_least") || found >= bounds.get("at_least").getAsLong());
    }
}
