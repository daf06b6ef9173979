package mlxgrpc_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

// Text gives the pieces of text, without events that have none.
func TestText(t *testing.T) {
	client := sending(started(), delta("one"), delta("", 7), delta(" two"), finished(), completed(2)).open(t, mlxgrpc.ClientOptions{})
	var pieces []string
	for text, err := range client.Stream(t.Context(), mlxgrpc.Prompt("count")).Text() {
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, text)
	}
	if !slices.Equal(pieces, []string{"one", " two"}) {
		t.Error(pieces)
	}
}

// Result is what Generate would have answered, what was read before included.
func TestResult(t *testing.T) {
	client := sending(started(), delta("a", 1), delta("b", 2, 3), finished(), completed(3)).open(t, mlxgrpc.ClientOptions{})
	stream := client.Stream(t.Context(), mlxgrpc.Prompt("count"))
	for range 2 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	found, err := stream.Result()
	if err != nil {
		t.Fatal(err)
	}
	wanted := &pb.GenerateResponse{
		GenerationId: "g", RequestId: "r", Model: "m", Seed: 1 << 60,
		Candidates: []*pb.Candidate{{
			Text: "ab", TokenIds: []uint32{1, 2, 3}, FinishReason: pb.FinishReason_FINISH_REASON_STOP,
		}},
		Usage: &pb.Usage{CompletionTokens: 3},
	}
	if !proto.Equal(found, wanted) {
		t.Errorf("%v, not %v", found, wanted)
	}
}

// An event of a later version is passed over.
func TestUnknownEvent(t *testing.T) {
	client := sending(started(), &pb.StreamGenerateResponse{}, completed(0)).open(t, mlxgrpc.ClientOptions{})
	stream := client.Stream(t.Context(), mlxgrpc.Prompt("count"))
	events := 0
	for _, err := range stream.Events() {
		if err != nil {
			t.Fatal(err)
		}
		events++
	}
	if events != 2 {
		t.Error(events)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Error(err)
	}
}

// endless sends until its call ends, then closes left.
func endless(left chan struct{}) *scripted {
	return &scripted{stream: func(_ *pb.GenerateRequest, call grpc.ServerStreamingServer[pb.StreamGenerateResponse]) error {
		if err := call.Send(delta("x")); err != nil {
			return err
		}
		<-call.Context().Done()
		close(left)
		return status.FromContextError(call.Context().Err()).Err()
	}}
}

// Leaving the loop reaches the server.
func TestLeavingTheLoop(t *testing.T) {
	left := make(chan struct{})
	client := endless(left).open(t, mlxgrpc.ClientOptions{})
	stream := client.Stream(t.Context(), mlxgrpc.Prompt("go on"))
	for _, err := range stream.Text() {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	<-left
	if _, err := stream.Result(); !errors.Is(err, mlxgrpc.Cancelled) {
		t.Error(err)
	}
}

// A context that is cancelled reaches the server and the reader that waits.
func TestCancelledContext(t *testing.T) {
	left := make(chan struct{})
	client := endless(left).open(t, mlxgrpc.ClientOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range client.Stream(ctx, mlxgrpc.Prompt("go on")).Text() {
		cancel()
		if err != nil && (!errors.Is(err, mlxgrpc.Cancelled) || !errors.Is(err, context.Canceled)) {
			t.Error(err)
		}
	}
	<-left
}

// Close from another goroutine ends a read that waits.
func TestClose(t *testing.T) {
	left := make(chan struct{})
	client := endless(left).open(t, mlxgrpc.ClientOptions{})
	stream := client.Stream(t.Context(), mlxgrpc.Prompt("go on"))
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = stream.Close() }()
	if _, err := stream.Recv(); !errors.Is(err, mlxgrpc.Cancelled) {
		t.Error(err)
	}
	<-left
}

// A context that has ended before is an error of the first read.
func TestContextThatHasEnded(t *testing.T) {
	client := sending().open(t, mlxgrpc.ClientOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Stream(ctx, mlxgrpc.Prompt("go on")).Result(); !errors.Is(err, mlxgrpc.Cancelled) {
		t.Error(err)
	}
}

// After the first message nothing is tried again, and the error knows the call's ids.
func TestNoRetryAfterTheFirstMessage(t *testing.T) {
	server := &scripted{stream: func(_ *pb.GenerateRequest, call grpc.ServerStreamingServer[pb.StreamGenerateResponse]) error {
		call.SetTrailer(metadata.Pairs("x-request-id", "mine", "x-generation-id", "its"))
		_ = call.Send(started())
		return status.Error(codes.Unavailable, "cut off")
	}}
	client := server.open(t, mlxgrpc.ClientOptions{})
	_, err := client.Stream(t.Context(), mlxgrpc.Prompt("go on")).Result()
	var found *mlxgrpc.Error
	if !errors.As(err, &found) || found.Kind != mlxgrpc.Unavailable || found.Metadata["request_id"] != "mine" ||
		found.Metadata["generation_id"] != "its" {
		t.Error(err)
	}
	if len(server.calls()) != 1 {
		t.Error(len(server.calls()))
	}
}

// Chat fills in the messages and leaves the request that it was given alone.
func TestChat(t *testing.T) {
	seen := make(chan *pb.GenerateRequest, 2)
	server := sending(completed(0))
	send := server.stream
	server.stream = func(request *pb.GenerateRequest, call grpc.ServerStreamingServer[pb.StreamGenerateResponse]) error {
		seen <- request
		return send(request, call)
	}
	client := server.open(t, mlxgrpc.ClientOptions{})
	given := &pb.GenerateRequest{
		Stop:  &pb.Stop{MaxTokens: proto.Uint32(3)},
		Input: &pb.GenerateRequest_Chat{Chat: &pb.Chat{TemplateArgsJson: proto.String("{}")}},
	}
	kept := proto.CloneOf(given)
	messages := []*pb.Message{mlxgrpc.System("Be brief."), mlxgrpc.User("Hello?"), mlxgrpc.Assistant("Hi.")}
	for _, request := range []*pb.GenerateRequest{given, nil} {
		if _, err := client.Chat(t.Context(), messages, request).Result(); err != nil {
			t.Fatal(err)
		}
	}
	first, second := <-seen, <-seen
	if len(first.GetChat().GetMessages()) != 3 || first.GetStop().GetMaxTokens() != 3 || first.GetChat().GetTemplateArgsJson() != "{}" {
		t.Error(first)
	}
	if second.GetChat().GetMessages()[1].GetContent()[0].GetText() != "Hello?" {
		t.Error(second)
	}
	if !proto.Equal(given, kept) {
		t.Error(given)
	}
}
