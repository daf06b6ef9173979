package main

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"unicode/utf8"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

// outcome is what was read of a call, whether it ended well or not. Its JSON values are proto JSON's.
type outcome struct {
	events       []any
	text         strings.Builder
	tokenIDs     []any
	logprobs     []any
	finishReason string
	stop         *pb.StopDetail
	started      any
	usage        any
	response     any
	cancelled    bool
	failure      *mlxgrpc.Error
	broken       error
}

func (o *outcome) add(event *pb.StreamGenerateResponse) {
	kind := ""
	switch event := event.GetEvent().(type) {
	case *pb.StreamGenerateResponse_Queued:
		kind = "queued"
	case *pb.StreamGenerateResponse_Started:
		kind, o.started = "started", plain(event.Started)
	case *pb.StreamGenerateResponse_Prefill:
		kind = "prefill"
	case *pb.StreamGenerateResponse_Delta:
		kind = "delta"
		o.text.WriteString(event.Delta.GetText())
		o.tokens(event.Delta.GetTokenIds(), event.Delta.GetLogprobs())
	case *pb.StreamGenerateResponse_Finished:
		kind = "finished"
		o.finishReason, o.stop = event.Finished.GetFinishReason().String(), event.Finished.GetStopDetail()
	case *pb.StreamGenerateResponse_Completed:
		kind, o.usage = "completed", plain(event.Completed.GetUsage())
	}
	// Repeats of one kind count once.
	if len(o.events) == 0 || o.events[len(o.events)-1] != kind {
		o.events = append(o.events, kind)
	}
}

func (o *outcome) take(answer *pb.GenerateResponse) {
	candidate := answer.GetCandidates()[0]
	o.text.WriteString(candidate.GetText())
	o.tokens(candidate.GetTokenIds(), candidate.GetLogprobs())
	o.finishReason, o.stop = candidate.GetFinishReason().String(), candidate.GetStopDetail()
	o.started, o.usage = plain(answer), plain(answer.GetUsage())
}

func (o *outcome) tokens(ids []uint32, logprobs []*pb.TokenLogprob) {
	for _, id := range ids {
		o.tokenIDs = append(o.tokenIDs, float64(id))
	}
	for _, one := range logprobs {
		o.logprobs = append(o.logprobs, plain(one))
	}
}

// differences gives one line for each key of expect that does not hold.
func (o *outcome) differences(expect map[string]any) (lines []string) {
	if o.broken != nil {
		return []string{"the runner: " + o.broken.Error()}
	}
	if o.failure != nil && expect["error"] == nil {
		return []string{"failed: " + o.failure.Error()}
	}
	if wanted, _ := expect["cancelled"].(bool); wanted != o.cancelled {
		lines = append(lines, fmt.Sprintf("cancelled is %v", o.cancelled))
	}
	for key, wanted := range expect {
		switch key {
		case "cancelled":
		case "error":
			lines = append(lines, errorDifferences(wanted.(map[string]any), o.failure)...)
		case "text_starts_with":
			if !strings.HasPrefix(o.text.String(), wanted.(string)) {
				lines = append(lines, fmt.Sprintf("text is %q", o.text.String()))
			}
		default:
			if found := o.value(key); !alike(wanted, found) {
				lines = append(lines, fmt.Sprintf("%s is %v, not %v", key, found, wanted))
			}
		}
	}
	return lines
}

func (o *outcome) value(key string) any {
	switch key {
	case "events":
		return o.events
	case "text":
		return o.text.String()
	case "text_characters":
		return float64(utf8.RuneCountInString(o.text.String()))
	case "token_ids":
		return o.tokenIDs
	case "token_ids_count":
		return float64(len(o.tokenIDs))
	case "token_ids_sum":
		sum := 0.0
		for _, id := range o.tokenIDs {
			sum += id.(float64)
		}
		return sum
	case "logprobs":
		return o.logprobs
	case "finish_reason":
		return o.finishReason
	case "stop_string":
		return o.stop.GetStopString()
	case "stop_token_id":
		return float64(o.stop.GetStopTokenId())
	case "started":
		return o.started
	case "usage":
		return o.usage
	case "response":
		return o.response
	}
	return "unknown to this runner"
}

// alike: objects hold what is wanted of them, lists are as long and hold it item by item, log-probabilities are near.
func alike(wanted, found any) bool {
	switch wanted := wanted.(type) {
	case map[string]any:
		found, ok := found.(map[string]any)
		for key, value := range wanted {
			other, has := found[key]
			if key == "logprob" && has {
				ok = ok && math.Abs(value.(float64)-other.(float64)) <= 0.001
			} else {
				ok = ok && has && alike(value, other)
			}
		}
		return ok
	case []any:
		found, ok := found.([]any)
		if !ok || len(wanted) != len(found) {
			return false
		}
		for index := range wanted {
			if !alike(wanted[index], found[index]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(wanted, found)
}

func errorDifferences(wanted map[string]any, found *mlxgrpc.Error) (lines []string) {
	if found == nil {
		return []string{fmt.Sprintf("ended well; expected %v", wanted)}
	}
	for key, value := range wanted {
		if !errorHolds(key, value, found) {
			lines = append(lines, fmt.Sprintf("error.%s is not %v: %+v", key, value, found))
		}
	}
	return lines
}

func errorHolds(key string, wanted any, found *mlxgrpc.Error) bool {
	switch key {
	case "type":
		return found.Kind.Is(mlxgrpc.Kind(wanted.(string)))
	case "code":
		return wanted == codeName(found)
	case "reason":
		return wanted == found.Reason
	case "field":
		return wanted == found.Field
	case "resource":
		return wanted == found.Resource
	case "message_has":
		return strings.Contains(found.Message, wanted.(string))
	case "retry_after":
		return wanted == (found.RetryAfter != nil && *found.RetryAfter > 0)
	case "metadata":
		for name, value := range wanted.(map[string]any) {
			if found.Metadata[name] != value {
				return false
			}
		}
		return true
	case "metadata_keys":
		for _, name := range wanted.([]any) {
			if _, has := found.Metadata[name.(string)]; !has {
				return false
			}
		}
		return true
	}
	return false
}

// codeName is the code as the protocol writes it: "INVALID_ARGUMENT" for Go's "InvalidArgument".
func codeName(found *mlxgrpc.Error) string {
	var name strings.Builder
	for index, letter := range found.Code.String() {
		if index > 0 && letter >= 'A' && letter <= 'Z' && found.Code.String() != "OK" {
			name.WriteByte('_')
		}
		name.WriteRune(letter)
	}
	return strings.Replace(strings.ToUpper(name.String()), "CANCELED", "CANCELLED", 1)
}
