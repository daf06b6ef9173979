package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

const patience = 60 * time.Second

// call is one that runs in a goroutine of its own.
type call struct {
	step    step
	outcome outcome
	left    context.Context
	leave   context.CancelFunc
	ended   chan struct{}
}

func start(client *mlxgrpc.Client, step step) *call {
	left, leave := context.WithCancel(context.Background())
	started := &call{step: step, left: left, leave: leave, ended: make(chan struct{})}
	go func() {
		defer close(started.ended)
		started.run(client)
	}()
	return started
}

func (c *call) name() string {
	if c.step.Name != "" {
		return c.step.Name
	}
	return c.step.Call
}

// end waits for the call's end and gives what differs from what is expected.
func (c *call) end() (differences []string) {
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.leave()
		return []string{c.name() + ": still running after " + patience.String()}
	}
	for _, line := range c.outcome.differences(c.step.Expect) {
		differences = append(differences, c.name()+": "+line)
	}
	return differences
}

func (c *call) run(client *mlxgrpc.Client) {
	ctx, cancel := context.WithCancel(c.left)
	if c.step.DeadlineMS > 0 {
		ctx, cancel = context.WithTimeout(c.left, time.Duration(c.step.DeadlineMS)*time.Millisecond)
	}
	defer cancel()
	var err error
	if c.step.Call == "stream" {
		err = c.stream(ctx, client)
	} else {
		err = c.once(ctx, client)
	}
	if err == nil {
		return
	}
	if c.left.Err() != nil && errors.Is(err, mlxgrpc.Cancelled) {
		c.outcome.cancelled = true
	} else if !errors.As(err, &c.outcome.failure) {
		c.outcome.broken = err
	}
}

func (c *call) stream(ctx context.Context, client *mlxgrpc.Client) error {
	request, err := parse(c.step.Request, &pb.GenerateRequest{})
	if err != nil {
		return err
	}
	deltas := 0
	for event, err := range client.Stream(ctx, request).Events() {
		if err != nil {
			return err
		}
		c.outcome.add(event)
		if event.GetDelta() == nil {
			continue
		}
		deltas++
		if delay := c.step.ReadDelay; delay.Every > 0 && deltas%delay.Every == 0 {
			time.Sleep(time.Duration(delay.MS) * time.Millisecond)
		}
		if deltas == c.step.CancelAfterDeltas {
			c.outcome.cancelled = true
			break
		}
	}
	return nil
}

// once plays a method that answers once.
func (c *call) once(ctx context.Context, client *mlxgrpc.Client) error {
	method, ok := methods[c.step.Call]
	if !ok {
		return fmt.Errorf("no such call: %s", c.step.Call)
	}
	answer, err := method(ctx, client, c.step.Request)
	if err != nil {
		return err
	}
	if whole, ok := answer.(*pb.GenerateResponse); ok {
		c.outcome.take(whole)
	}
	c.outcome.response = plain(answer)
	return nil
}

var methods = map[string]func(context.Context, *mlxgrpc.Client, json.RawMessage) (any, error){
	"generate":     unary(&pb.GenerateRequest{}, (*mlxgrpc.Client).Generate),
	"tokenize":     unary(&pb.TokenizeRequest{}, (*mlxgrpc.Client).Tokenize),
	"detokenize":   unary(&pb.DetokenizeRequest{}, (*mlxgrpc.Client).Detokenize),
	"count_tokens": unary(&pb.CountTokensRequest{}, (*mlxgrpc.Client).CountTokens),
	"render_chat":  unary(&pb.RenderChatRequest{}, (*mlxgrpc.Client).RenderChat),
	"get_model": unary(&pb.GetModelRequest{}, func(client *mlxgrpc.Client, ctx context.Context, request *pb.GetModelRequest) (*pb.GetModelResponse, error) {
		model, err := client.GetModel(ctx, request.GetModel())
		return &pb.GetModelResponse{Model: model}, err
	}),
	"load_model": unary(&pb.LoadModelRequest{}, func(client *mlxgrpc.Client, ctx context.Context, request *pb.LoadModelRequest) (*pb.LoadModelResponse, error) {
		model, err := client.LoadModel(ctx, request.GetModel())
		return &pb.LoadModelResponse{Model: model}, err
	}),
	"unload_model": unary(&pb.UnloadModelRequest{}, func(client *mlxgrpc.Client, ctx context.Context, request *pb.UnloadModelRequest) (*pb.UnloadModelResponse, error) {
		model, err := client.UnloadModel(ctx, request.GetModel(), request.GetForce())
		return &pb.UnloadModelResponse{Model: model}, err
	}),
	"list_models": unary(&pb.ListModelsRequest{}, func(client *mlxgrpc.Client, ctx context.Context, _ *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
		models, err := client.ListModels(ctx)
		return &pb.ListModelsResponse{Models: models}, err
	}),
	"server_info": unary(&pb.GetServerInfoRequest{}, func(client *mlxgrpc.Client, ctx context.Context, _ *pb.GetServerInfoRequest) (*pb.GetServerInfoResponse, error) {
		return client.ServerInfo(ctx)
	}),
	"health": func(ctx context.Context, client *mlxgrpc.Client, data json.RawMessage) (any, error) {
		var request struct{ Service string }
		if err := json.Unmarshal(data, &request); err != nil {
			return nil, err
		}
		status, err := client.Health(ctx, request.Service)
		return map[string]any{"status": status.String()}, err
	},
}

// unary makes a method of the client one that takes its request as proto JSON.
func unary[Request, Answer proto.Message](
	empty Request, method func(*mlxgrpc.Client, context.Context, Request) (Answer, error),
) func(context.Context, *mlxgrpc.Client, json.RawMessage) (any, error) {
	return func(ctx context.Context, client *mlxgrpc.Client, data json.RawMessage) (any, error) {
		request, err := parse(data, proto.CloneOf(empty))
		if err != nil {
			return nil, err
		}
		return method(client, ctx, request)
	}
}

func parse[Request proto.Message](data json.RawMessage, request Request) (Request, error) {
	if data == nil {
		return request, nil
	}
	return request, protojson.Unmarshal(data, request)
}

// plain is a message as proto JSON's values, the empty fields among them.
func plain(answer any) any {
	message, ok := answer.(proto.Message)
	if !ok {
		return answer
	}
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		return err.Error()
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err.Error()
	}
	return value
}
