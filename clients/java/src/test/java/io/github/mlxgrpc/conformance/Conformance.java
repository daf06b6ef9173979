package io.github.mlxgrpc.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Plays all conformance vectors, and reports as tests/conformance/README.md says. */
public final class Conformance {
    private Conformance() {}

    /** Arguments are the names of the vectors to play; none: all. */
    public static void main(String[] names) throws IOException, InterruptedException {
        JsonObject results = new JsonObject();
        try (HelperProgram helper = HelperProgram.open()) {
            JsonArray features = helper.get("features").getAsJsonArray("features");
            for (JsonObject vector : vectors()) {
                String name = vector.get("name").getAsString();
                if (names.length == 0 || List.of(names).contains(name)) {
                    String result = result(vector, features, helper);
                    results.addProperty(name, result);
                    int end = result.contains(":") ? result.indexOf(':') : result.length();
                    System.out.println(
                            result.substring(0, end).toUpperCase(Locale.ROOT) + " " + name + result.substring(end));
                }
            }
        }
        String out = System.getenv("MLX_GRPC_CONFORMANCE_OUT");
        if (out != null) {
            JsonObject report = Outcome.object("results", results);
            report.addProperty("client", "java");
            Files.writeString(Path.of(out), report.toString());
        }
        boolean failed = results.asMap().values().stream().anyMatch(r -> r.getAsString().startsWith("fail"));
        System.exit(failed ? 1 : 0);
    }

    private static String result(JsonObject vector, JsonArray features, HelperProgram helper)
            throws InterruptedException {
        for (JsonElement need : vector.getAsJsonArray("needs")) {
            if (!features.contains(need)) {
                return "skip: the server has no " + need.getAsString();
            }
        }
        try {
            List<String> differences = Play.vector(vector, helper);
            return differences.isEmpty() ? "pass" : "fail: " + String.join("; ", differences);
        } catch (IOException error) {
            return "fail: " + error.getMessage();
        }
    }

    private static List<JsonObject> vectors() throws IOException {
        List<JsonObject> all = new ArrayList<>();
        try (var files = Files.list(HelperProgram.root().resolve("tests/conformance"))) {
            for (Path file : files.filter(path -> path.toString().endsWith(".json")).sorted().toList()) {
                JsonParser.parseString(Files.readString(file))
                        .getAsJsonArray()
                        .forEach(vector -> all.add(vector.getAsJsonObject()));
            }
        }
        return all;
    }
}
