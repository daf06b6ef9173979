package io.github.mlxgrpc;

import io.github.mlxgrpc.v1.GenerateRequest;
import io.github.mlxgrpc.v1.GenerateResponse;
import io.github.mlxgrpc.v1.InferenceServiceGrpc;
import io.github.mlxgrpc.v1.StreamGenerateResponse;
import io.github.mlxgrpc.v1.StreamGenerateResponse.EventCase;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * The events of a generation, as they come. To be read by one thread; {@link #close} may be called from any.
 *
 * <pre>{@code
 * try (Stream stream = client.stream(prompt("Once upon a time"))) {
 *     stream.text().forEach(System.out::print);
 * }
 * }</pre>
 *
 * <p>Closing it, or interrupting the thread that waits for the next event, cancels the call, and the server takes its row out
 * of the batch. {@code hasNext} and {@code next} throw {@link MlxGrpcError} when the call fails.
 */
public final class Stream implements Iterator<StreamGenerateResponse>, Iterable<StreamGenerateResponse>, AutoCloseable {
    /** At most this many events wait here; the server is told to go on when half of them have been read. */
    private static final int READ_AHEAD = 64;

    private final ClientCall<GenerateRequest, StreamGenerateResponse> call;
    private final BlockingQueue<Object> inbox = new LinkedBlockingQueue<>();
    private final Gatherer gatherer = new Gatherer();
    private int taken;
    private StreamGenerateResponse next;
    private volatile boolean closed;

    private record End(Status status, Metadata trailers) {}

    private Stream(ClientCall<GenerateRequest, StreamGenerateResponse> call) {
        this.call = call;
    }

    static Stream start(Channel channel, CallOptions options, GenerateRequest request) {
        // The listener only puts things in a queue, so gRPC's own thread may do it.
        CallOptions direct = options.withExecutor(Runnable::run);
        Stream stream = new Stream(channel.newCall(InferenceServiceGrpc.getStreamGenerateMethod(), direct));
        stream.call.start(stream.new Listener(), new Metadata());
        stream.call.request(READ_AHEAD);
        stream.call.sendMessage(request);
        stream.call.halfClose();
        return stream;
    }

    /** Whether there is another event; waits for it. */
    @Override
    public boolean hasNext() {
        while (next == null && !closed) {
            if (take() instanceof StreamGenerateResponse event) {
                // One that this version does not know is passed over.
                next = event.getEventCase() == EventCase.EVENT_NOT_SET ? null : event;
            }
        }
        return next != null;
    }

    /** The next event; waits for it. */
    @Override
    public StreamGenerateResponse next() {
        if (!hasNext()) {
            throw new NoSuchElementException("the stream is at its end");
        }
        StreamGenerateResponse event = next;
        next = null;
        gatherer.add(event);
        return event;
    }

    /** This stream itself: it can be read once. */
    @Override
    public Iterator<StreamGenerateResponse> iterator() {
        return this;
    }

    /** The pieces of text alone, to be read once. */
    public Iterable<String> text() {
        return () -> new TextIterator(this);
    }

    /** Reads to the end and returns all of it, the events that were read before included. */
    public GenerateResponse result() {
        while (hasNext()) {
            next();
        }
        return gatherer.response();
    }

    /** Cancels the call if it still runs; the stream is at its end then. */
    @Override
    public void close() {
        if (!closed) {
            closed = true;
            call.cancel("the stream was closed", null);
        }
    }

    private Object take() {
        try {
            Object taken = inbox.take();
            if (taken instanceof End end) {
                finish(end);
            } else if (++this.taken % (READ_AHEAD / 2) == 0) {
                call.request(READ_AHEAD / 2);
            }
            return taken;
        } catch (InterruptedException error) {
            close();
            Thread.currentThread().interrupt();
            throw Statuses.error(Status.CANCELLED.withDescription("the thread was interrupted"), null, error);
        }
    }

    private void finish(End end) {
        boolean left = closed;
        closed = true;
        if (!left && !end.status().isOk()) {
            throw Statuses.error(end.status(), end.trailers(), null);
        }
    }

    private final class Listener extends ClientCall.Listener<StreamGenerateResponse> {
        @Override
        public void onMessage(StreamGenerateResponse message) {
            inbox.add(message);
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            inbox.add(new End(status, trailers));
        }
    }

    private record TextIterator(Stream stream) implements Iterator<String> {
        @Override
        public boolean hasNext() {
            while (stream.hasNext() && stream.next.getDelta().getText().isEmpty()) {
                stream.next();
            }
            return stream.hasNext();
        }

        @Override
        public String next() {
            if (!hasNext()) {
                throw new NoSuchElementException("the stream is at its end");
            }
            return stream.next().getDelta().getText();
        }
    }
}
