package mlxgrpc

import (
	"context"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

// Stream is a running generation. One goroutine reads it; any may close it.
type Stream struct {
	call   grpc.ServerStreamingClient[pb.StreamGenerateResponse]
	cancel context.CancelFunc
	err    error
	gathered
}

// Recv gives the next event, passing over those that this version does not know. It fails with io.EOF at the end, and with
// an *Error otherwise.
func (s *Stream) Recv() (*pb.StreamGenerateResponse, error) {
	for s.err == nil {
		event, err := s.call.Recv()
		switch {
		case err == io.EOF:
			s.end(io.EOF)
		case err != nil:
			s.end(newError(err, s.call.Trailer()))
		case event.GetEvent() != nil:
			s.add(event)
			return event, nil
		}
	}
	return nil, s.err
}

// Events gives all events. A loop that is left cancels the call.
func (s *Stream) Events() iter.Seq2[*pb.StreamGenerateResponse, error] {
	return func(yield func(*pb.StreamGenerateResponse, error) bool) {
		defer s.Close()
		for {
			event, err := s.Recv()
			if err == io.EOF || !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Text gives the pieces of text alone. A loop that is left cancels the call.
func (s *Stream) Text() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for event, err := range s.Events() {
			text := event.GetDelta().GetText()
			if (err != nil || text != "") && !yield(text, err) {
				return
			}
		}
	}
}

// Result reads to the end and gives all of it, what was read before included, as Generate would.
func (s *Stream) Result() (*pb.GenerateResponse, error) {
	for _, err := range s.Events() {
		if err != nil {
			return nil, err
		}
	}
	if s.completed == nil {
		return nil, newError(status.Error(codes.Canceled, "the stream was closed before its end"), nil)
	}
	return s.response(), nil
}

// Close cancels the call if it still runs; the server then takes its row out of the batch. A read that waits meanwhile
// fails with Cancelled.
func (s *Stream) Close() error {
	s.cancel()
	return nil
}

// end keeps how the stream ended and lets its context go.
func (s *Stream) end(err error) {
	s.err = err
	s.cancel()
}
