package io.github.mlxgrpc.conformance;

import static io.github.mlxgrpc.Requests.prompt;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.sun.management.OperatingSystemMXBean;
import io.github.mlxgrpc.Client;
import io.github.mlxgrpc.v1.GenerateRequest;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * What a streamed message costs this client, in rounds that alternate with the Python client's against one server with the
 * scripted model. Prints one JSON line: the median round of each, in microseconds a message.
 */
public final class Bench {
    private static final int ROUNDS = 3;
    private static final int TOKENS = 10_000;
    private static final int WARM_UP_TOKENS = 10_000; // the JIT compiler needs more of them than others do
    private static final String SERVER =
            """
            {"script": {"context_length": 16384, "step_seconds": 0.0002}, "settings": {}, "engine": "process"}
            """;
    private static final OperatingSystemMXBean SYSTEM =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    private Bench() {}

    /** Takes no arguments. */
    public static void main(String[] none) throws IOException {
        List<JsonObject> own = new ArrayList<>();
        List<JsonObject> python = new ArrayList<>();
        try (HelperProgram helper = HelperProgram.open()) {
            JsonObject facts = helper.post("server", JsonParser.parseString(SERVER).getAsJsonObject());
            String target = facts.get("grpc").getAsString();
            for (int round = 0; round < ROUNDS; round++) {
                own.add(measure(target));
                python.add(measurePython(target));
            }
        }
        JsonObject report = new JsonObject();
        report.addProperty("client", "java");
        report.addProperty("tokens", TOKENS);
        report.addProperty("rounds", ROUNDS);
        report.add("own", median(own));
        report.add("python", median(python));
        System.out.println(report);
    }

    private static JsonObject measure(String target) {
        try (Client client = Client.open(target)) {
            read(client, WARM_UP_TOKENS);
            long wall = System.nanoTime();
            long cpu = SYSTEM.getProcessCpuTime();
            int messages = read(client, TOKENS);
            wall = System.nanoTime() - wall;
            cpu = SYSTEM.getProcessCpuTime() - cpu;
            JsonObject round = new JsonObject();
            round.addProperty("messages", messages);
            round.addProperty("wall_us", wall / 1e3 / messages);
            round.addProperty("cpu_us", cpu / 1e3 / messages);
            return round;
        }
    }

    private static int read(Client client, int maxTokens) {
        GenerateRequest.Builder request = prompt("go on").toBuilder();
        request.getStopBuilder().setMaxTokens(maxTokens);
        int messages = 0;
        for (var stream = client.stream(request.build()); stream.hasNext(); stream.next()) {
            messages++;
        }
        return messages;
    }

    private static JsonObject measurePython(String target) throws IOException {
        String script = HelperProgram.root().resolve("clients/bench_python.py").toString();
        Process process = new ProcessBuilder(HelperProgram.python(), script, target, Integer.toString(TOKENS))
                .redirectError(ProcessBuilder.Redirect.INHERIT)
                .start();
        try (var lines = process.inputReader()) {
            return JsonParser.parseString(lines.readLine()).getAsJsonObject();
        }
    }

    private static JsonObject median(List<JsonObject> rounds) {
        return rounds.stream()
                .sorted(Comparator.comparingDouble(round -> round.get("wall_us").getAsDouble()))
                .toList()
                .get(rounds.size() / 2);
    }
}
