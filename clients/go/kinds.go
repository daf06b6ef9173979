package mlxgrpc

import "google.golang.org/grpc/codes"

// Kind names what went wrong, and is a target for errors.Is.
type Kind string

// The kinds of errors. Where the server gave no reason, the gRPC code picks the kind.
const (
	// MlxGrpcError is all of them.
	MlxGrpcError Kind = "MlxGrpcError"
	// InvalidField is a field that holds what no request may hold; Error.Field names it.
	InvalidField Kind = "InvalidField"
	// PromptTooLong is an InvalidField: the prompt leaves no room in the model's context.
	PromptTooLong Kind = "PromptTooLong"
	// NeverFits is an InvalidField: the request needs more memory than there is for all.
	NeverFits Kind = "NeverFits"
	// UnsupportedField is a good field that this model or server cannot honour.
	UnsupportedField Kind = "UnsupportedField"
	// ModelNotFound says that there is no such model; Error.Resource names it.
	ModelNotFound Kind = "ModelNotFound"
	// ModelFailed says that the model could not be loaded, or that its engine died too often.
	ModelFailed Kind = "ModelFailed"
	// Unavailable says that nobody can serve this now.
	Unavailable Kind = "Unavailable"
	// ModelLoading is an Unavailable: the model is loading, or its engine restarting.
	ModelLoading Kind = "ModelLoading"
	// Draining is an Unavailable: the server is about to stop.
	Draining Kind = "Draining"
	// ResourceExhausted is a limit of gRPC's own or of a proxy, such as a message that is too large.
	ResourceExhausted Kind = "ResourceExhausted"
	// QueueFull says that too many requests wait; Error.RetryAfter says when to come again.
	QueueFull Kind = "QueueFull"
	// IntakeFull says that too many bytes were taken in and not yet answered.
	IntakeFull Kind = "IntakeFull"
	// RateLimited says that this client has had its share of requests, tokens or places for now; Error.RetryAfter says
	// when to come again.
	RateLimited Kind = "RateLimited"
	// SlowReader says that the stream was not read for too long.
	SlowReader Kind = "SlowReader"
	// DeadlineExceeded says that the deadline ran out.
	DeadlineExceeded Kind = "DeadlineExceeded"
	// DeadlineUnreachable is a DeadlineExceeded: the first token cannot come in time.
	DeadlineUnreachable Kind = "DeadlineUnreachable"
	// DeadlinePassed is a DeadlineExceeded: it ran out in the queue, in prefill or in decode.
	DeadlinePassed Kind = "DeadlinePassed"
	// CancelledByAdmin says that an operator ended the request.
	CancelledByAdmin Kind = "CancelledByAdmin"
	// NoToken says that the token is missing or unknown.
	NoToken Kind = "NoToken"
	// WrongScope says that the caller may not do this.
	WrongScope Kind = "WrongScope"
	// PoisonRequest says that the request crashed the engine, alone, twice.
	PoisonRequest Kind = "PoisonRequest"
	// NonfiniteLogits says that the model's logits for this request are not finite: it cannot go on. Other requests
	// were not touched.
	NonfiniteLogits Kind = "NonfiniteLogits"
	// InternalError is a bug of the server's; metadata "error_id" is in its log.
	InternalError Kind = "InternalError"
	// Cancelled says that this side left the call, or something on the way ended it.
	Cancelled Kind = "Cancelled"
)

// Error makes a Kind a target for errors.Is.
func (k Kind) Error() string { return string(k) }

// Is holds for k itself and for all that it is a kind of.
func (k Kind) Is(target error) bool {
	kind, ok := target.(Kind)
	return ok && (kind == k || kind == MlxGrpcError || kind == parents[k])
}

var parents = map[Kind]Kind{
	PromptTooLong:       InvalidField,
	NeverFits:           InvalidField,
	ModelLoading:        Unavailable,
	Draining:            Unavailable,
	DeadlineUnreachable: DeadlineExceeded,
	DeadlinePassed:      DeadlineExceeded,
}

var byReason = map[string]Kind{
	"INVALID_FIELD":        InvalidField,
	"PROMPT_TOO_LONG":      PromptTooLong,
	"NEVER_FITS":           NeverFits,
	"UNSUPPORTED_FIELD":    UnsupportedField,
	"MODEL_NOT_FOUND":      ModelNotFound,
	"MODEL_FAILED":         ModelFailed,
	"MODEL_LOADING":        ModelLoading,
	"DRAINING":             Draining,
	"QUEUE_FULL":           QueueFull,
	"INTAKE_FULL":          IntakeFull,
	"RATE_LIMITED":         RateLimited,
	"SLOW_READER":          SlowReader,
	"DEADLINE_UNREACHABLE": DeadlineUnreachable,
	"DEADLINE_PASSED":      DeadlinePassed,
	"CANCELLED_BY_ADMIN":   CancelledByAdmin,
	"NO_TOKEN":             NoToken,
	"WRONG_SCOPE":          WrongScope,
	"POISON_REQUEST":       PoisonRequest,
	"NONFINITE_LOGITS":     NonfiniteLogits,
	"INTERNAL":             InternalError,
}

var byCode = map[codes.Code]Kind{
	codes.InvalidArgument:    InvalidField,
	codes.NotFound:           ModelNotFound,
	codes.FailedPrecondition: ModelFailed,
	codes.Unimplemented:      UnsupportedField,
	codes.Unavailable:        Unavailable,
	codes.DeadlineExceeded:   DeadlineExceeded,
	codes.ResourceExhausted:  ResourceExhausted,
	codes.Aborted:            CancelledByAdmin,
	codes.Unauthenticated:    NoToken,
	codes.PermissionDenied:   WrongScope,
	codes.Internal:           InternalError,
	codes.Canceled:           Cancelled,
}

func kindOf(code codes.Code) Kind {
	if kind, ok := byCode[code]; ok {
		return kind
	}
	return MlxGrpcError
}
