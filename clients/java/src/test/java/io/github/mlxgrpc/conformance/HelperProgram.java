package io.github.mlxgrpc.conformance;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/** {@code python -m mlx_grpc.testing}: one of our own, or the one that MLX_GRPC_TEST_CONTROL names. */
final class HelperProgram implements AutoCloseable {
    private final HttpClient http =
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final Optional<Process> process;
    private final String control;

    private HelperProgram(Optional<Process> process, String control) {
        this.process = process;
        this.control = control;
    }

    static HelperProgram open() throws IOException {
        String running = System.getenv("MLX_GRPC_TEST_CONTROL");
        if (running != null) {
            return new HelperProgram(Optional.empty(), running);
        }
        Process process = new ProcessBuilder(List.of(python(), "-m", "mlx_grpc.testing"))
                .directory(root().toFile())
                .redirectError(ProcessBuilder.Redirect.INHERIT)
                .start();
        BufferedReader lines = process.inputReader();
        String line = lines.readLine();
        if (line == null) {
            throw new IOException("mlx_grpc.testing did not start; MLX_GRPC_PYTHON names a Python that has mlx_grpc");
        }
        String control =
                JsonParser.parseString(line).getAsJsonObject().get("control").getAsString();
        return new HelperProgram(Optional.of(process), control);
    }

    /** The repository's root: the folder above that holds the vectors. */
    static Path root() throws IOException {
        for (Path folder = Path.of("").toAbsolutePath(); folder != null; folder = folder.getParent()) {
            if (Files.isDirectory(folder.resolve("tests/conformance"))) {
                return folder;
            }
        }
        throw new IOException("run this inside the repository: no folder above has tests/conformance");
    }

    static String python() throws IOException {
        String given = System.getenv("MLX_GRPC_PYTHON");
        return given != null ? given : root().resolve(".venv/bin/python").toString();
    }

    JsonObject get(String name) throws IOException {
        return ask(HttpRequest.newBuilder(URI.create(control + "/" + name)).build());
    }

    JsonObject post(String name, JsonObject body) throws IOException {
        return ask(HttpRequest.newBuilder(URI.create(control + "/" + name))
                .POST(HttpRequest.BodyPublishers.ofString(body.toString()))
                .build());
    }

    private JsonObject ask(HttpRequest request) throws IOException {
        try {
            HttpResponse<String> answer = http.send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() >= 400) {
                throw new IOException(request.uri() + ": " + answer.statusCode() + " " + answer.body());
            }
            return JsonParser.parseString(answer.body()).getAsJsonObject();
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IOException(error);
        }
    }

    /** It ends when its standard input does. */
    @Override
    public void close() throws IOException {
        if (process.isPresent()) {
            process.get().getOutputStream().close();
            process.get().onExit().join();
        }
    }
}
