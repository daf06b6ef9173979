// Measures what a streamed message costs this client, in rounds that alternate with the Python client's against one server with
// the scripted model, and prints one JSON line: the median round of each, in microseconds a message.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
	"github.com/mlx-grpc/mlx-grpc/clients/go/internal/helper"
	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

const (
	rounds       = 3
	tokens       = 10_000
	warmUpTokens = 500
)

// server generates in a process of its own, as in service, and at a pace at which almost every token is a message.
var server = json.RawMessage(`{"script": {"context_length": 16384, "step_seconds": 0.0002}, "settings": {}, "engine": "process"}`)

// round is what one stream took: its messages, and microseconds of wall and of the client's CPU time for each.
type round struct {
	Messages int     `json:"messages"`
	WallUS   float64 `json:"wall_us"`
	CPUUS    float64 `json:"cpu_us"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	program, err := helper.Start()
	if err != nil {
		return err
	}
	defer program.End()
	var facts struct{ GRPC string }
	if err := program.Post("server", server, &facts); err != nil {
		return err
	}
	var own, python []round
	for range rounds {
		one, err := measure(facts.GRPC)
		if err != nil {
			return err
		}
		other, err := measurePython(facts.GRPC)
		if err != nil {
			return err
		}
		own, python = append(own, one), append(python, other)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"client": "go", "tokens": tokens, "rounds": rounds, "own": median(own), "python": median(python),
	})
}

func measure(target string) (round, error) {
	client, err := mlxgrpc.NewClient(target, mlxgrpc.ClientOptions{})
	if err != nil {
		return round{}, err
	}
	defer client.Close()
	if _, err := read(client, warmUpTokens); err != nil {
		return round{}, err
	}
	wall, cpu := time.Now(), cpuTime()
	messages, err := read(client, tokens)
	each := 1 / float64(messages) / float64(time.Microsecond)
	return round{messages, float64(time.Since(wall)) * each, float64(cpuTime()-cpu) * each}, err
}

func read(client *mlxgrpc.Client, maxTokens uint32) (messages int, err error) {
	request := mlxgrpc.Prompt("go on")
	request.Stop = &pb.Stop{MaxTokens: proto.Uint32(maxTokens)}
	for _, err := range client.Stream(context.Background(), request).Events() {
		if err != nil {
			return messages, err
		}
		messages++
	}
	return messages, nil
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func measurePython(target string) (found round, err error) {
	root, err := helper.Root()
	if err != nil {
		return found, err
	}
	script := filepath.Join(root, "clients", "bench_python.py")
	command := exec.Command(helper.Python(root), script, target, strconv.Itoa(tokens))
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(output, &found)
}

func median(some []round) round {
	slices.SortFunc(some, func(a, b round) int { return int(a.WallUS - b.WallUS) })
	return some[len(some)/2]
}
