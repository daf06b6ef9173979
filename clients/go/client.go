// Package mlxgrpc is a client of mlx_grpc, a gRPC inference service for MLX language models.
//
//	client, err := mlxgrpc.NewClient("localhost:50051", mlxgrpc.ClientOptions{})
//	...
//	defer client.Close()
//	for text, err := range client.Stream(ctx, mlxgrpc.Prompt("The capital of France is")).Text() {
//		...
//	}
//
// Requests and answers are the generated messages of package mlxgrpcv1. A call's context is its deadline and its
// cancellation, and both reach the server.
package mlxgrpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

// HealthStatus is SERVING, NOT_SERVING or SERVICE_UNKNOWN.
type HealthStatus = grpc_health_v1.HealthCheckResponse_ServingStatus

// Client is a connection to one server, for any number of goroutines. Its errors are *Error.
type Client struct {
	options    ClientOptions
	connection *grpc.ClientConn
	inference  pb.InferenceServiceClient
	tokenizer  pb.TokenizerServiceClient
	models     pb.ModelServiceClient
	server     pb.ServerServiceClient
	healths    grpc_health_v1.HealthClient
}

// NewClient makes a client of the server at target ("" is DefaultTarget); it connects with its first call.
func NewClient(target string, options ClientOptions) (*Client, error) {
	dial, err := options.dialOptions()
	if err != nil {
		return nil, err
	}
	if target == "" {
		target = DefaultTarget
	}
	connection, err := grpc.NewClient(target, dial...)
	if err != nil {
		return nil, err
	}
	return &Client{
		options:    options,
		connection: connection,
		inference:  pb.NewInferenceServiceClient(connection),
		tokenizer:  pb.NewTokenizerServiceClient(connection),
		models:     pb.NewModelServiceClient(connection),
		server:     pb.NewServerServiceClient(connection),
		healths:    grpc_health_v1.NewHealthClient(connection),
	}, nil
}

// Close cancels what still runs and closes the connection.
func (c *Client) Close() error { return c.connection.Close() }

// Generate answers once, when all is done.
func (c *Client) Generate(ctx context.Context, request *pb.GenerateRequest) (*pb.GenerateResponse, error) {
	return c.inference.Generate(ctx, request)
}

// Stream generates and gives what comes as it comes. Read it, or close it. A failure to start is the first read's.
func (c *Client) Stream(ctx context.Context, request *pb.GenerateRequest) *Stream {
	ctx, cancel := c.options.withDeadline(ctx)
	stream := &Stream{cancel: cancel}
	call, err := c.inference.StreamGenerate(ctx, request)
	if err != nil {
		stream.end(newError(err, nil))
		return stream
	}
	stream.call = call
	return stream
}

// Chat is Stream with these messages as the request's chat. The request may be nil; it is not changed.
func (c *Client) Chat(ctx context.Context, messages []*pb.Message, request *pb.GenerateRequest) *Stream {
	filled := &pb.GenerateRequest{}
	proto.Merge(filled, request)
	chat := filled.GetChat()
	if chat == nil {
		chat = &pb.Chat{}
	}
	chat.Messages = messages
	filled.Input = &pb.GenerateRequest_Chat{Chat: chat}
	return c.Stream(ctx, filled)
}

// Tokenize turns text or a conversation into token ids.
func (c *Client) Tokenize(ctx context.Context, request *pb.TokenizeRequest) (*pb.TokenizeResponse, error) {
	return c.tokenizer.Tokenize(ctx, request)
}

// Detokenize turns token ids into text.
func (c *Client) Detokenize(ctx context.Context, request *pb.DetokenizeRequest) (*pb.DetokenizeResponse, error) {
	return c.tokenizer.Detokenize(ctx, request)
}

// CountTokens counts the tokens of a text or a conversation, as generation would.
func (c *Client) CountTokens(ctx context.Context, request *pb.CountTokensRequest) (*pb.CountTokensResponse, error) {
	return c.tokenizer.CountTokens(ctx, request)
}

// RenderChat renders a conversation with the model's template.
func (c *Client) RenderChat(ctx context.Context, request *pb.RenderChatRequest) (*pb.RenderChatResponse, error) {
	return c.tokenizer.RenderChat(ctx, request)
}

// ListModels gives all models that the server knows, by id.
func (c *Client) ListModels(ctx context.Context) ([]*pb.Model, error) {
	var models []*pb.Model
	request := &pb.ListModelsRequest{}
	for {
		page, err := c.models.ListModels(ctx, request)
		if err != nil {
			return nil, err
		}
		models = append(models, page.GetModels()...)
		if page.GetNextPageToken() == "" {
			return models, nil
		}
		request.PageToken = proto.String(page.GetNextPageToken())
	}
}

// GetModel tells of one model; "" is the server's default.
func (c *Client) GetModel(ctx context.Context, model string) (*pb.Model, error) {
	request := &pb.GetModelRequest{}
	if model != "" {
		request.Model = &model
	}
	answer, err := c.models.GetModel(ctx, request)
	return answer.GetModel(), err
}

// LoadModel starts to load a model and returns at once: ask GetModel or Health("models/ID") how far it is.
func (c *Client) LoadModel(ctx context.Context, model string) (*pb.Model, error) {
	answer, err := c.models.LoadModel(ctx, &pb.LoadModelRequest{Model: model})
	return answer.GetModel(), err
}

// UnloadModel lets a model finish its requests (or with force, ends them), then frees its memory; it returns at once.
func (c *Client) UnloadModel(ctx context.Context, model string, force bool) (*pb.Model, error) {
	answer, err := c.models.UnloadModel(ctx, &pb.UnloadModelRequest{Model: model, Force: &force})
	return answer.GetModel(), err
}

// ServerInfo tells of the server's versions, device, limits and features.
func (c *Client) ServerInfo(ctx context.Context) (*pb.GetServerInfoResponse, error) {
	return c.server.GetServerInfo(ctx, &pb.GetServerInfoRequest{})
}

// Health says how the process ("") is, or "mlx_grpc.v1.InferenceService", or "models/ID".
func (c *Client) Health(ctx context.Context, service string) (HealthStatus, error) {
	answer, err := c.healths.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if errors.Is(err, ModelNotFound) {
		return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, nil
	}
	return answer.GetStatus(), err
}

// unary gives every call that is answered once the options' deadline, and its error its type.
func (o ClientOptions) unary(
	ctx context.Context, method string, request, answer any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	ctx, cancel := o.withDeadline(ctx)
	defer cancel()
	var trailer metadata.MD
	err := invoke(ctx, method, request, answer, connection, append(options, grpc.Trailer(&trailer))...)
	return newError(err, trailer)
}

// withDeadline gives a context that can be cancelled, with the options' deadline where it has none.
func (o ClientOptions) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has || o.Timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, o.Timeout)
}
