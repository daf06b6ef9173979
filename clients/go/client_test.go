package mlxgrpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

// answering refuses the first calls with code and these trailing metadata, and answers the rest.
func answering(refusals int, code codes.Code, trailer ...string) *scripted {
	server := &scripted{}
	server.generate = func(ctx context.Context, _ *pb.GenerateRequest) (*pb.GenerateResponse, error) {
		if len(server.calls()) <= refusals {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(trailer...))
			return nil, status.Error(code, "not now")
		}
		return &pb.GenerateResponse{Model: "m"}, nil
	}
	return server
}

// Calls that are refused before their first message are tried again, as soon as the server says.
func TestRetries(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.ResourceExhausted} {
		server := answering(3, code, "grpc-retry-pushback-ms", "1")
		answer, err := server.open(t, mlxgrpc.ClientOptions{}).Generate(t.Context(), mlxgrpc.Prompt("x"))
		if err != nil || answer.GetModel() != "m" || len(server.calls()) != 4 {
			t.Errorf("%s: %v %v after %d", code, answer, err, len(server.calls()))
		}
	}
}

// Four attempts are all.
func TestFourAttempts(t *testing.T) {
	server := answering(9, codes.Unavailable, "grpc-retry-pushback-ms", "1")
	_, err := server.open(t, mlxgrpc.ClientOptions{}).Generate(t.Context(), mlxgrpc.Prompt("x"))
	if !errors.Is(err, mlxgrpc.Unavailable) || len(server.calls()) != 4 {
		t.Errorf("%v after %d", err, len(server.calls()))
	}
}

// Nothing is tried again where the server forbids it, for other codes, or with NoRetry.
func TestNoRetries(t *testing.T) {
	for name, one := range map[string]struct {
		server  *scripted
		options mlxgrpc.ClientOptions
	}{
		"forbidden":  {answering(1, codes.Unavailable, "grpc-retry-pushback-ms", "-1"), mlxgrpc.ClientOptions{}},
		"other code": {answering(1, codes.Internal), mlxgrpc.ClientOptions{}},
		"NoRetry":    {answering(1, codes.Unavailable), mlxgrpc.ClientOptions{NoRetry: true}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := one.server.open(t, one.options).Generate(t.Context(), mlxgrpc.Prompt("x"))
			if err == nil || len(one.server.calls()) != 1 {
				t.Errorf("%v after %d", err, len(one.server.calls()))
			}
		})
	}
}

// The server learns who calls: a user agent with a version, and the token.
func TestHeaders(t *testing.T) {
	server := answering(0, codes.OK)
	if _, err := server.open(t, mlxgrpc.ClientOptions{Token: "secret"}).Generate(t.Context(), mlxgrpc.Prompt("x")); err != nil {
		t.Fatal(err)
	}
	header := server.calls()[0]
	if agent := header.Get("user-agent")[0]; !strings.HasPrefix(agent, "mlx-grpc-go/"+mlxgrpc.Version+" grpc-go/") {
		t.Error(agent)
	}
	if token := header.Get("authorization"); len(token) != 1 || token[0] != "Bearer secret" {
		t.Error(token)
	}
}

// Timeout is the deadline of calls whose context has none, streams among them; a context's own holds.
func TestTimeout(t *testing.T) {
	left := make(chan time.Time, 4)
	server := &scripted{
		generate: func(ctx context.Context, _ *pb.GenerateRequest) (*pb.GenerateResponse, error) {
			deadline, _ := ctx.Deadline()
			left <- deadline
			return &pb.GenerateResponse{}, nil
		},
		stream: func(_ *pb.GenerateRequest, call grpc.ServerStreamingServer[pb.StreamGenerateResponse]) error {
			deadline, _ := call.Context().Deadline()
			left <- deadline
			return call.Send(completed(0))
		},
	}
	client := server.open(t, mlxgrpc.ClientOptions{Timeout: time.Hour})
	own, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
	defer cancel()
	for _, ctx := range []context.Context{t.Context(), own} {
		if _, err := client.Generate(ctx, mlxgrpc.Prompt("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Stream(ctx, mlxgrpc.Prompt("x")).Result(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, mine := ctx.Deadline()
			if hours := time.Until(<-left).Hours(); (hours > 1.5) != mine {
				t.Error(hours)
			}
		}
	}
}

// ListModels asks page after page, and gives all that each model says of itself.
func TestListModels(t *testing.T) {
	server := &scripted{list: func(request *pb.ListModelsRequest) *pb.ListModelsResponse {
		if request.GetPageToken() == "" {
			return &pb.ListModelsResponse{Models: []*pb.Model{{Id: "a"}}, NextPageToken: "more"}
		}
		model := &pb.Model{Id: request.GetPageToken(), Batching: pb.Batching_BATCHING_ALONE}
		return &pb.ListModelsResponse{Models: []*pb.Model{model}}
	}}
	models, err := server.open(t, mlxgrpc.ClientOptions{}).ListModels(t.Context())
	if err != nil || len(models) != 2 || models[1].GetId() != "more" {
		t.Fatal(models, err)
	}
	for at, wanted := range []pb.Batching{pb.Batching_BATCHING_UNSPECIFIED, pb.Batching_BATCHING_ALONE} {
		if found := models[at].GetBatching(); found != wanted {
			t.Error(models[at].GetId(), found)
		}
	}
}

// Health of a service that the server does not know is an answer, not an error.
func TestHealth(t *testing.T) {
	client := sending().open(t, mlxgrpc.ClientOptions{})
	for service, wanted := range map[string]string{"": "SERVING", "models/none": "SERVICE_UNKNOWN"} {
		if found, err := client.Health(t.Context(), service); err != nil || found.String() != wanted {
			t.Error(service, found, err)
		}
	}
}
