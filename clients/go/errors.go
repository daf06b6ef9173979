package mlxgrpc

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// domain is what the server's ErrorInfo has; a proxy's own errors have another.
const domain = "mlx_grpc"

// Error is every failure of a call. Ask what it is with errors.Is, which knows the families:
//
//	errors.Is(err, mlxgrpc.QueueFull)
//	errors.Is(err, mlxgrpc.DeadlineExceeded) // DeadlinePassed and DeadlineUnreachable, too
//
// and for its facts with errors.As.
type Error struct {
	// Kind names the error's type.
	Kind Kind
	// Code is the gRPC status.
	Code codes.Code
	// Reason is the server's stable word, "QUEUE_FULL". Empty where gRPC itself made the status.
	Reason string
	// Message is one line for a person.
	Message string
	// Field is the path of the field at fault, "sampling.top_p".
	Field string
	// RetryAfter says when to come again; nil where the server named no time.
	RetryAfter *time.Duration
	// Resource is the name of what was not found.
	Resource string
	// Metadata holds further facts, such as "prompt_tokens", and the call's "request_id" and "generation_id".
	Metadata map[string]string

	cause error
}

// Error gives the kind and the message.
func (e *Error) Error() string { return string(e.Kind) + ": " + e.Message }

// Unwrap gives gRPC's own error.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus gives the status as it came, for status.FromError.
func (e *Error) GRPCStatus() *status.Status { return status.Convert(e.cause) }

// Is holds for the error's kind and all that it is a kind of, for context.Canceled where the call was cancelled, and for
// context.DeadlineExceeded where its deadline ran out.
func (e *Error) Is(target error) bool {
	if kind, ok := target.(Kind); ok {
		return e.Kind.Is(kind)
	}
	return target == context.Canceled && e.Kind == Cancelled ||
		target == context.DeadlineExceeded && e.Kind.Is(DeadlineExceeded)
}

// trailingKeys are the trailing metadata that become part of an error's, under a plain name.
var trailingKeys = map[string]string{"x-request-id": "request_id", "x-generation-id": "generation_id"}

// newError turns gRPC's error and the call's trailing metadata into ours; nil stays nil.
func newError(err error, trailer metadata.MD) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	// A context that ends before the call starts gives its bare error.
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = status.FromContextError(err).Err()
	}
	from := status.Convert(err)
	e := &Error{Kind: kindOf(from.Code()), Code: from.Code(), Message: from.Message(), cause: err, Metadata: map[string]string{}}
	if e.Message == "" {
		e.Message = strings.ToLower(from.Code().String())
	}
	for key, name := range trailingKeys {
		if values := trailer.Get(key); len(values) > 0 {
			e.Metadata[name] = values[0]
		}
	}
	for _, detail := range from.Details() {
		e.add(detail)
	}
	return e
}

// add takes over the facts of one of google.rpc's details; those of other types are passed over.
func (e *Error) add(detail any) {
	switch detail := detail.(type) {
	case *errdetails.ErrorInfo:
		if detail.GetDomain() != domain {
			return
		}
		e.Reason = detail.GetReason()
		maps.Copy(e.Metadata, detail.GetMetadata())
		if kind, ok := byReason[e.Reason]; ok {
			e.Kind = kind
		}
	case *errdetails.RetryInfo:
		delay := detail.GetRetryDelay().AsDuration()
		e.RetryAfter = &delay
	case *errdetails.BadRequest:
		if violations := detail.GetFieldViolations(); len(violations) > 0 {
			e.Field = violations[0].GetField()
		}
	case *errdetails.ResourceInfo:
		e.Resource = detail.GetResourceName()
	}
}
