package mlxgrpc

import (
	"slices"
	"strings"

	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

// gathered puts a stream's events together to what Generate would have answered.
type gathered struct {
	started    *pb.StartedEvent
	completed  *pb.CompletedEvent
	candidates []*candidate
}

type candidate struct {
	pb   *pb.Candidate
	text strings.Builder
}

func (g *gathered) add(event *pb.StreamGenerateResponse) {
	switch event := event.GetEvent().(type) {
	case *pb.StreamGenerateResponse_Started:
		g.started = event.Started
	case *pb.StreamGenerateResponse_Delta:
		one := g.candidate(event.Delta.GetIndex())
		one.text.WriteString(event.Delta.GetText())
		one.pb.TokenIds = append(one.pb.TokenIds, event.Delta.GetTokenIds()...)
		one.pb.Logprobs = append(one.pb.Logprobs, event.Delta.GetLogprobs()...)
	case *pb.StreamGenerateResponse_Finished:
		one := g.candidate(event.Finished.GetIndex())
		one.pb.FinishReason = event.Finished.GetFinishReason()
		one.pb.StopDetail = event.Finished.GetStopDetail()
	case *pb.StreamGenerateResponse_Completed:
		g.completed = event.Completed
	}
}

// candidate gives the one with this index, new where it is the first time.
func (g *gathered) candidate(index uint32) *candidate {
	for _, one := range g.candidates {
		if one.pb.GetIndex() == index {
			return one
		}
	}
	one := &candidate{pb: &pb.Candidate{Index: index}}
	g.candidates = append(g.candidates, one)
	return one
}

func (g *gathered) response() *pb.GenerateResponse {
	answer := &pb.GenerateResponse{
		GenerationId: g.started.GetGenerationId(),
		RequestId:    g.started.GetRequestId(),
		Model:        g.started.GetModel(),
		Seed:         g.started.GetSeed(),
		Usage:        g.completed.GetUsage(),
		Timings:      g.completed.GetTimings(),
	}
	slices.SortFunc(g.candidates, func(a, b *candidate) int { return int(a.pb.GetIndex()) - int(b.pb.GetIndex()) })
	for _, one := range g.candidates {
		one.pb.Text = one.text.String()
		answer.Candidates = append(answer.Candidates, one.pb)
	}
	return answer
}
