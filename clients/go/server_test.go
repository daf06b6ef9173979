package mlxgrpc_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

// scripted is a server of which each test says how it answers.
type scripted struct {
	pb.UnimplementedInferenceServiceServer
	pb.UnimplementedModelServiceServer
	generate func(context.Context, *pb.GenerateRequest) (*pb.GenerateResponse, error)
	stream   func(*pb.GenerateRequest, grpc.ServerStreamingServer[pb.StreamGenerateResponse]) error
	list     func(*pb.ListModelsRequest) *pb.ListModelsResponse

	mutex   sync.Mutex
	headers []metadata.MD
}

func (s *scripted) Generate(ctx context.Context, request *pb.GenerateRequest) (*pb.GenerateResponse, error) {
	s.keep(ctx)
	return s.generate(ctx, request)
}

func (s *scripted) StreamGenerate(request *pb.GenerateRequest, call grpc.ServerStreamingServer[pb.StreamGenerateResponse]) error {
	s.keep(call.Context())
	return s.stream(request, call)
}

func (s *scripted) ListModels(_ context.Context, request *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	return s.list(request), nil
}

func (s *scripted) keep(ctx context.Context) {
	header, _ := metadata.FromIncomingContext(ctx)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.headers = append(s.headers, header)
}

// calls gives the headers of each attempt that arrived.
func (s *scripted) calls() []metadata.MD {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.headers
}

// serve starts the server and gives its address; both end with the test.
func (s *scripted) serve(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	pb.RegisterInferenceServiceServer(server, s)
	pb.RegisterModelServiceServer(server, s)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// open starts the server and gives a client of it.
func (s *scripted) open(t *testing.T, options mlxgrpc.ClientOptions) *mlxgrpc.Client {
	t.Helper()
	return open(t, s.serve(t), options)
}

func open(t *testing.T, target string, options mlxgrpc.ClientOptions) *mlxgrpc.Client {
	t.Helper()
	client, err := mlxgrpc.NewClient(target, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// refusing answers every call with this status.
func refusing(code codes.Code, details ...protoadapt.MessageV1) *scripted {
	refused := status.New(code, "no")
	if len(details) > 0 {
		refused, _ = refused.WithDetails(details...)
	}
	return &scripted{
		generate: func(context.Context, *pb.GenerateRequest) (*pb.GenerateResponse, error) { return nil, refused.Err() },
		stream: func(*pb.GenerateRequest, grpc.ServerStreamingServer[pb.StreamGenerateResponse]) error {
			return refused.Err()
		},
	}
}

func info(reason string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: reason, Domain: "mlx_grpc", Metadata: map[string]string{"a": "b"}}
}

func started() *pb.StreamGenerateResponse {
	event := &pb.StartedEvent{GenerationId: "g", RequestId: "r", Model: "m", PromptTokens: 3, Seed: 1 << 60}
	return &pb.StreamGenerateResponse{Event: &pb.StreamGenerateResponse_Started{Started: event}}
}

func delta(text string, ids ...uint32) *pb.StreamGenerateResponse {
	event := &pb.DeltaEvent{Text: text, TokenIds: ids}
	return &pb.StreamGenerateResponse{Event: &pb.StreamGenerateResponse_Delta{Delta: event}}
}

func finished() *pb.StreamGenerateResponse {
	event := &pb.FinishedEvent{FinishReason: pb.FinishReason_FINISH_REASON_STOP}
	return &pb.StreamGenerateResponse{Event: &pb.StreamGenerateResponse_Finished{Finished: event}}
}

func completed(tokens uint32) *pb.StreamGenerateResponse {
	event := &pb.CompletedEvent{Usage: &pb.Usage{CompletionTokens: tokens}}
	return &pb.StreamGenerateResponse{Event: &pb.StreamGenerateResponse_Completed{Completed: event}}
}

// sending answers every stream with these events.
func sending(events ...*pb.StreamGenerateResponse) *scripted {
	return &scripted{stream: func(_ *pb.GenerateRequest, call grpc.ServerStreamingServer[pb.StreamGenerateResponse]) error {
		for _, event := range events {
			if err := call.Send(event); err != nil {
				return err
			}
		}
		return nil
	}}
}
