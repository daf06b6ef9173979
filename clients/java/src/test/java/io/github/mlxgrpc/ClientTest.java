package io.github.mlxgrpc;

import static io.github.mlxgrpc.Requests.prompt;
import static io.github.mlxgrpc.Requests.user;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.mlxgrpc.v1.GenerateRequest;
import io.github.mlxgrpc.v1.InferenceServiceGrpc;
import io.github.mlxgrpc.v1.StreamGenerateResponse;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Flow;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Against a gRPC server in this process; tests/conformance has the real one. */
class ClientTest {
    private static final StreamGenerateResponse UNKNOWN = StreamGenerateResponse.getDefaultInstance();

    private final Service service = new Service();
    private Server server;
    private Client client;

    @BeforeEach
    void open() throws IOException {
        String name = InProcessServerBuilder.generateName();
        server = InProcessServerBuilder.forName(name).addService(service).build().start();
        ClientOptions options = ClientOptions.DEFAULTS;
        client = new Client(
                Channels.configure(InProcessChannelBuilder.forName(name), options).build(), options.timeout());
    }

    @AfterEach
    void close() throws InterruptedException {
        client.close();
        server.shutdownNow().awaitTermination();
    }

    /** A stream gives its events, those of newer servers apart, and the whole at the end. */
    @Test
    void streamsGiveTheirEvents() {
        service.answer = List.of(delta("Hel"), UNKNOWN, delta(""), delta("lo"));
        try (Stream stream = client.stream(prompt("hi"))) {
            assertEquals("Hel", stream.next().getDelta().getText());
            List<String> rest = new ArrayList<>();
            stream.text().forEach(rest::add);
            assertEquals(List.of("lo"), rest);
            assertEquals("Hello", stream.result().getCandidates(0).getText());
        }
    }

    /** More events than are read ahead come all. */
    @Test
    void longStreamsComeWhole() {
        service.answer = Collections.nCopies(1000, delta("x"));
        try (Stream stream = client.stream(prompt("hi"))) {
            assertEquals(1000, stream.result().getCandidates(0).getText().length());
        }
    }

    /** Closing a stream cancels its call on the server, and ends its iterator. */
    @Test
    void closingCancels() throws InterruptedException {
        service.answer = List.of(delta("a"));
        service.goesOn = true;
        Stream stream = client.stream(prompt("hi"));
        stream.next();
        stream.close();
        assertTrue(service.cancelled.await(10, TimeUnit.SECONDS));
        assertFalse(stream.hasNext());
    }

    /** A call that is refused is made again; what it then gives is all that is seen. */
    @Test
    void refusedCallsAreMadeAgain() {
        service.refusals.set(2);
        service.answer = List.of(delta("ok"));
        try (Stream stream = client.stream(prompt("hi"))) {
            assertEquals("ok", stream.result().getCandidates(0).getText());
        }
        assertEquals(3, service.calls.get());
    }

    /** An error after the first message ends the stream. */
    @Test
    void startedCallsAreNotMadeAgain() {
        service.answer = List.of(delta("a"));
        service.end = Optional.of(Status.UNAVAILABLE);
        try (Stream stream = client.stream(prompt("hi"))) {
            stream.next();
            assertThrows(MlxGrpcError.Unavailable.class, stream::hasNext);
            assertFalse(stream.hasNext());
        }
        assertEquals(1, service.calls.get());
    }

    /** The deadline is an error of its own. */
    @Test
    void deadlinesEndCalls() {
        service.goesOn = true;
        try (Stream stream = client.withTimeout(Duration.ofMillis(50)).stream(prompt("hi"))) {
            assertThrows(MlxGrpcError.DeadlineExceeded.class, stream::hasNext);
        }
    }

    /** A conversation replaces the turns alone. */
    @Test
    void chatsKeepTheRequest() {
        GenerateRequest.Builder request = GenerateRequest.newBuilder().setModel("m");
        request.getChatBuilder().setTemplateArgsJson("{}");
        client.chat(List.of(user("hi")), request.build()).result();
        GenerateRequest seen = service.requests.remove();
        assertEquals("m", seen.getModel());
        assertEquals("{}", seen.getChat().getTemplateArgsJson());
        assertEquals("hi", seen.getChat().getMessages(0).getContent(0).getText());
    }

    /** A subscriber gets no more than it asked for, and all in the end. */
    @Test
    void publishersHonourDemand() throws InterruptedException {
        service.answer = List.of(delta("a"), UNKNOWN, delta("b"));
        Subscriber subscriber = new Subscriber();
        client.publisher(prompt("hi")).subscribe(subscriber);
        subscriber.subscription.request(1);
        assertEquals("a", subscriber.seen.take());
        subscriber.subscription.request(5);
        assertEquals("b", subscriber.seen.take());
        assertEquals("complete", subscriber.seen.take());
    }

    /** A subscription that is cancelled cancels its call. */
    @Test
    void publishersCancel() throws InterruptedException {
        service.answer = List.of(delta("a"));
        service.goesOn = true;
        Subscriber subscriber = new Subscriber();
        client.publisher(prompt("hi")).subscribe(subscriber);
        subscriber.subscription.request(1);
        assertEquals("a", subscriber.seen.take());
        subscriber.subscription.cancel();
        assertTrue(service.cancelled.await(10, TimeUnit.SECONDS));
    }

    /** Asking for nothing is the subscriber's error, as Flow has it. */
    @Test
    void publishersRefuseNoDemand() throws InterruptedException {
        Subscriber subscriber = new Subscriber();
        client.publisher(prompt("hi")).subscribe(subscriber);
        subscriber.subscription.request(0);
        assertEquals("IllegalArgumentException", subscriber.seen.take());
    }

    /** The user agent names the version that Maven builds. */
    @Test
    void theVersionIsMavens() {
        assertEquals(System.getProperty("project.version"), Channels.VERSION);
    }

    /** Half an identity is refused at once. */
    @Test
    void optionsAreChecked() {
        assertThrows(IllegalArgumentException.class, () -> ClientOptions.DEFAULTS.token("a\nb"));
        assertTrue(ClientOptions.DEFAULTS.identity("key", "chain").tls());
    }

    private static StreamGenerateResponse delta(String text) {
        StreamGenerateResponse.Builder event = StreamGenerateResponse.newBuilder();
        event.getDeltaBuilder().setText(text);
        return event.build();
    }

    private static final class Service extends InferenceServiceGrpc.InferenceServiceImplBase {
        final AtomicInteger refusals = new AtomicInteger();
        final AtomicInteger calls = new AtomicInteger();
        final CountDownLatch cancelled = new CountDownLatch(1);
        final BlockingQueue<GenerateRequest> requests = new LinkedBlockingQueue<>();
        volatile List<StreamGenerateResponse> answer = List.of();
        volatile Optional<Status> end = Optional.empty();
        volatile boolean goesOn;

        @Override
        public void streamGenerate(GenerateRequest request, StreamObserver<StreamGenerateResponse> observer) {
            calls.incrementAndGet();
            requests.add(request);
            ((ServerCallStreamObserver<StreamGenerateResponse>) observer).setOnCancelHandler(cancelled::countDown);
            if (refusals.getAndDecrement() > 0) {
                observer.onError(Status.RESOURCE_EXHAUSTED.asRuntimeException());
                return;
            }
            answer.forEach(observer::onNext);
            if (goesOn) {
                return;
            }
            end.ifPresentOrElse(status -> observer.onError(status.asRuntimeException()), observer::onCompleted);
        }
    }

    private static final class Subscriber implements Flow.Subscriber<StreamGenerateResponse> {
        final BlockingQueue<String> seen = new LinkedBlockingQueue<>();
        Flow.Subscription subscription;

        @Override
        public void onSubscribe(Flow.Subscription given) {
            subscription = given;
        }

        @Override
        public void onNext(StreamGenerateResponse event) {
            seen.add(event.getDelta().getText());
        }

        @Override
        public void onError(Throwable error) {
            seen.add(error.getClass().getSimpleName());
        }

        @Override
        public void onComplete() {
            seen.add("complete");
        }
    }
}
