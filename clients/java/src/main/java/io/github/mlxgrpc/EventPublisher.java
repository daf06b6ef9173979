package io.github.mlxgrpc;

import io.github.mlxgrpc.v1.GenerateRequest;
import io.github.mlxgrpc.v1.InferenceServiceGrpc;
import io.github.mlxgrpc.v1.StreamGenerateResponse;
import io.github.mlxgrpc.v1.StreamGenerateResponse.EventCase;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.Flow;
import java.util.function.Supplier;

/** A call for each subscriber. What a subscriber asks for is what is asked of the server, so nothing piles up here. */
record EventPublisher(Channel channel, Supplier<CallOptions> options, GenerateRequest request)
        implements Flow.Publisher<StreamGenerateResponse> {

    @Override
    public void subscribe(Flow.Subscriber<? super StreamGenerateResponse> subscriber) {
        new Subscription(
                        channel.newCall(InferenceServiceGrpc.getStreamGenerateMethod(), options.get()), subscriber)
                .begin(request);
    }

    private static final class Subscription extends ClientCall.Listener<StreamGenerateResponse>
            implements Flow.Subscription {
        private final ClientCall<GenerateRequest, StreamGenerateResponse> call;
        private final Flow.Subscriber<? super StreamGenerateResponse> subscriber;
        private boolean started;
        private boolean ended;
        private long demand;

        Subscription(
                ClientCall<GenerateRequest, StreamGenerateResponse> call,
                Flow.Subscriber<? super StreamGenerateResponse> subscriber) {
            this.call = call;
            this.subscriber = subscriber;
        }

        /** The subscriber may ask, or leave, before the call can be told so. */
        void begin(GenerateRequest request) {
            subscriber.onSubscribe(this);
            synchronized (this) {
                if (ended) {
                    return;
                }
                started = true;
                call.start(this, new Metadata());
                if (demand > 0) {
                    call.request(clamped(demand));
                }
                call.sendMessage(request);
                call.halfClose();
            }
        }

        @Override
        public void request(long count) {
            boolean bad;
            synchronized (this) {
                bad = count <= 0 && !ended;
                if (!bad && !ended && started) {
                    call.request(clamped(count));
                } else {
                    demand = demand + count < 0 ? Long.MAX_VALUE : demand + count;
                }
            }
            if (bad) {
                cancel();
                subscriber.onError(new IllegalArgumentException("request(" + count + "): must be above 0"));
            }
        }

        @Override
        public synchronized void cancel() {
            if (!ended && started) {
                call.cancel("the subscription was cancelled", null);
            }
            ended = true;
        }

        @Override
        public void onMessage(StreamGenerateResponse event) {
            if (hasEnded()) {
                return;
            }
            if (event.getEventCase() == EventCase.EVENT_NOT_SET) {
                call.request(1); // one that this version does not know is passed over
            } else {
                subscriber.onNext(event);
            }
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            synchronized (this) {
                if (ended) {
                    return;
                }
                ended = true;
            }
            if (status.isOk()) {
                subscriber.onComplete();
            } else {
                subscriber.onError(Statuses.error(status, trailers, null));
            }
        }

        private synchronized boolean hasEnded() {
            return ended;
        }

        private static int clamped(long count) {
            return (int) Math.min(count, Integer.MAX_VALUE);
        }
    }
}
