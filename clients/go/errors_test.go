package mlxgrpc_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
)

func failWith(t *testing.T, server *scripted) *mlxgrpc.Error {
	t.Helper()
	client := server.open(t, mlxgrpc.ClientOptions{NoRetry: true})
	_, err := client.Generate(t.Context(), mlxgrpc.Prompt("x"))
	var found *mlxgrpc.Error
	if !errors.As(err, &found) {
		t.Fatalf("%T %v", err, err)
	}
	return found
}

// Each reason of the server's picks its kind, and each kind is one of its family.
func TestReasons(t *testing.T) {
	for reason, wanted := range map[string][]mlxgrpc.Kind{
		"INVALID_FIELD":        {mlxgrpc.InvalidField},
		"PROMPT_TOO_LONG":      {mlxgrpc.PromptTooLong, mlxgrpc.InvalidField},
		"NEVER_FITS":           {mlxgrpc.NeverFits, mlxgrpc.InvalidField},
		"UNSUPPORTED_FIELD":    {mlxgrpc.UnsupportedField},
		"MODEL_NOT_FOUND":      {mlxgrpc.ModelNotFound},
		"MODEL_FAILED":         {mlxgrpc.ModelFailed},
		"MODEL_LOADING":        {mlxgrpc.ModelLoading, mlxgrpc.Unavailable},
		"DRAINING":             {mlxgrpc.Draining, mlxgrpc.Unavailable},
		"QUEUE_FULL":           {mlxgrpc.QueueFull},
		"INTAKE_FULL":          {mlxgrpc.IntakeFull},
		"RATE_LIMITED":         {mlxgrpc.RateLimited},
		"SLOW_READER":          {mlxgrpc.SlowReader},
		"DEADLINE_UNREACHABLE": {mlxgrpc.DeadlineUnreachable, mlxgrpc.DeadlineExceeded},
		"DEADLINE_PASSED":      {mlxgrpc.DeadlinePassed, mlxgrpc.DeadlineExceeded},
		"CANCELLED_BY_ADMIN":   {mlxgrpc.CancelledByAdmin},
		"NO_TOKEN":             {mlxgrpc.NoToken},
		"WRONG_SCOPE":          {mlxgrpc.WrongScope},
		"POISON_REQUEST":       {mlxgrpc.PoisonRequest},
		"NONFINITE_LOGITS":     {mlxgrpc.NonfiniteLogits},
		"INTERNAL":             {mlxgrpc.InternalError},
	} {
		t.Run(reason, func(t *testing.T) {
			found := failWith(t, refusing(codes.Unknown, info(reason)))
			for _, kind := range append(wanted, mlxgrpc.MlxGrpcError) {
				if !errors.Is(found, kind) {
					t.Errorf("%v is no %s", found, kind)
				}
			}
			if found.Kind != wanted[0] || found.Reason != reason || found.Metadata["a"] != "b" || errors.Is(found, mlxgrpc.Cancelled) {
				t.Errorf("%+v", found)
			}
		})
	}
}

// Without a reason of the server's, the code picks the kind.
func TestCodes(t *testing.T) {
	for code, wanted := range map[codes.Code]mlxgrpc.Kind{
		codes.InvalidArgument: mlxgrpc.InvalidField, codes.NotFound: mlxgrpc.ModelNotFound,
		codes.FailedPrecondition: mlxgrpc.ModelFailed, codes.Unimplemented: mlxgrpc.UnsupportedField,
		codes.Unavailable: mlxgrpc.Unavailable, codes.DeadlineExceeded: mlxgrpc.DeadlineExceeded,
		codes.ResourceExhausted: mlxgrpc.ResourceExhausted, codes.Aborted: mlxgrpc.CancelledByAdmin,
		codes.Unauthenticated: mlxgrpc.NoToken, codes.PermissionDenied: mlxgrpc.WrongScope,
		codes.Internal: mlxgrpc.InternalError, codes.Canceled: mlxgrpc.Cancelled, codes.DataLoss: mlxgrpc.MlxGrpcError,
	} {
		t.Run(code.String(), func(t *testing.T) {
			foreign := &errdetails.ErrorInfo{Reason: "QUEUE_FULL", Domain: "a proxy"}
			found := failWith(t, refusing(code, foreign))
			if found.Kind != wanted || found.Code != code || found.Reason != "" || found.Message != "no" {
				t.Errorf("%+v", found)
			}
		})
	}
}

// A reason that this version does not know is kept, and the code picks the kind.
func TestUnknownReason(t *testing.T) {
	if found := failWith(t, refusing(codes.Unavailable, info("MOONLIGHT"))); found.Kind != mlxgrpc.Unavailable || found.Reason != "MOONLIGHT" {
		t.Errorf("%+v", found)
	}
}

// Field, time to wait and resource come from the details; gRPC's own status is still there.
func TestDetails(t *testing.T) {
	found := failWith(t, refusing(codes.NotFound,
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "sampling.top_p"}, {Field: "other"}}},
		&errdetails.ResourceInfo{ResourceName: "none"}))
	if found.Field != "sampling.top_p" || *found.RetryAfter != 1500*time.Millisecond || found.Resource != "none" {
		t.Errorf("%+v", found)
	}
	if status.Code(found) != codes.NotFound {
		t.Error(status.Code(found))
	}
}

// A deadline that this side sees is one for Go's context package, too.
func TestDeadline(t *testing.T) {
	client := sending().open(t, mlxgrpc.ClientOptions{})
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err := client.Generate(ctx, mlxgrpc.Prompt("x"))
	if !errors.Is(err, mlxgrpc.DeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
