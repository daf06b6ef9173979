// A conversation in the terminal, with any mlx_grpc server. Ctrl-C stops an answer, Ctrl-D ends.
//
//	go run ./examples/chat [TARGET]
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
	pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"
)

func main() {
	target := mlxgrpc.DefaultTarget
	if len(os.Args) > 1 {
		target = os.Args[1]
	}
	client, err := mlxgrpc.NewClient(target, mlxgrpc.ClientOptions{Token: os.Getenv("MLX_GRPC_TOKEN")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer client.Close()

	var messages []*pb.Message
	for lines := bufio.NewScanner(os.Stdin); prompt() && lines.Scan(); {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		messages = append(messages, mlxgrpc.User(lines.Text()))
		answer, err := say(client, messages)
		if err != nil && !errors.Is(err, mlxgrpc.Cancelled) {
			fmt.Fprintln(os.Stderr, err)
			messages = messages[:len(messages)-1]
			continue
		}
		messages = append(messages, mlxgrpc.Assistant(answer))
	}
	fmt.Println()
}

func prompt() bool {
	fmt.Print("> ")
	return true
}

// say prints the answer as it comes, and gives it whole. Ctrl-C leaves the call, and the server stops generating.
func say(client *mlxgrpc.Client, messages []*pb.Message) (string, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var answer strings.Builder
	defer fmt.Println()
	for text, err := range client.Chat(ctx, messages, nil).Text() {
		if err != nil {
			return answer.String(), err
		}
		fmt.Print(text)
		answer.WriteString(text)
	}
	return answer.String(), nil
}
