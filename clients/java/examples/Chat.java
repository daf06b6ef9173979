import static io.github.mlxgrpc.Requests.user;

import io.github.mlxgrpc.Client;
import io.github.mlxgrpc.MlxGrpcError;
import io.github.mlxgrpc.Stream;
import io.github.mlxgrpc.v1.FinishReason;
import io.github.mlxgrpc.v1.GenerateRequest;
import io.github.mlxgrpc.v1.GenerateResponse;
import java.util.List;

/** Asks one question and prints the answer as it comes: {@code Chat.java [QUESTION [HOST:PORT]]}. */
public final class Chat {
    private Chat() {}

    /** Exit code 1 when the call fails. */
    public static void main(String[] arguments) {
        String question = arguments.length > 0 ? arguments[0] : "What is the capital of France?";
        String target = arguments.length > 1 ? arguments[1] : Client.DEFAULT_TARGET;
        GenerateRequest.Builder request = GenerateRequest.newBuilder();
        request.getStopBuilder().setMaxTokens(200);
        try (Client client = Client.open(target);
                Stream stream = client.chat(List.of(user(question)), request.build())) {
            for (String text : stream.text()) {
                System.out.print(text);
                System.out.flush();
            }
            GenerateResponse whole = stream.result();
            FinishReason reason = whole.getCandidates(0).getFinishReason();
            System.out.printf("%n[%d tokens, %s]%n", whole.getUsage().getCompletionTokens(), reason);
        } catch (MlxGrpcError error) {
            System.err.println(error.getClass().getSimpleName() + ": " + error.getMessage());
            error.retryAfter().ifPresent(delay -> System.err.println("try again in " + delay.toMillis() + " ms"));
            System.exit(1);
        }
    }
}
