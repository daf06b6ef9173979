package io.github.mlxgrpc;

import io.github.mlxgrpc.v1.Candidate;
import io.github.mlxgrpc.v1.GenerateResponse;
import io.github.mlxgrpc.v1.StartedEvent;
import io.github.mlxgrpc.v1.StreamGenerateResponse;

/** Puts the events of a stream together to what a whole generation would have answered. */
final class Gatherer {
    private final GenerateResponse.Builder response = GenerateResponse.newBuilder();
    private final Candidate.Builder candidate = Candidate.newBuilder();
    private final StringBuilder text = new StringBuilder();

    void add(StreamGenerateResponse event) {
        switch (event.getEventCase()) {
            case STARTED -> start(event.getStarted());
            case DELTA -> {
                text.append(event.getDelta().getText());
                candidate
                        .addAllTokenIds(event.getDelta().getTokenIdsList())
                        .addAllLogprobs(event.getDelta().getLogprobsList());
            }
            case FINISHED -> {
                candidate.setFinishReason(event.getFinished().getFinishReason());
                if (event.getFinished().hasStopDetail()) {
                    candidate.setStopDetail(event.getFinished().getStopDetail());
                }
            }
            case COMPLETED -> response.setUsage(event.getCompleted().getUsage())
                    .setTimings(event.getCompleted().getTimings());
            default -> {}
        }
    }

    GenerateResponse response() {
        return response.clone()
                .addCandidates(candidate.clone().setText(text.toString()))
                .build();
    }

    private void start(StartedEvent started) {
        response.setGenerationId(started.getGenerationId())
                .setRequestId(started.getRequestId())
                .setModel(started.getModel())
                .setSeed(started.getSeed());
    }
}
