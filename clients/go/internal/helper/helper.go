// Package helper starts and commands `python -m mlx_grpc.testing`, as tests/conformance/README.md describes it.
package helper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Program is the helper program, running.
type Program struct {
	Control string `json:"control"`
	GRPC    string `json:"grpc"`
	http    http.Client
	end     func() error
}

// Start connects to the program that MLX_GRPC_TEST_CONTROL names, or starts one of our own.
func Start() (*Program, error) {
	program := &Program{http: http.Client{Timeout: 30 * time.Second}, end: func() error { return nil }}
	if program.Control = os.Getenv("MLX_GRPC_TEST_CONTROL"); program.Control != "" {
		return program, nil
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	command := exec.Command(Python(root), "-m", "mlx_grpc.testing")
	command.Dir, command.Stderr = root, os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	// It ends when its input closes.
	program.end = func() error { return errors.Join(input.Close(), command.Wait()) }
	if err := json.NewDecoder(output).Decode(program); err != nil {
		return nil, errors.Join(fmt.Errorf("%v did not start: %w", command, err), program.end())
	}
	return program, nil
}

// End ends the program, where it is our own.
func (p *Program) End() error { return p.end() }

// Get asks for something and puts the answer into answer.
func (p *Program) Get(name string, answer any) error {
	response, err := p.http.Get(p.Control + "/" + name)
	return take(response, err, answer)
}

// Post gives a command and puts the answer into answer, which may be nil.
func (p *Program) Post(name string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	response, err := p.http.Post(p.Control+"/"+name, "application/json", bytes.NewReader(data))
	return take(response, err, answer)
}

func take(response *http.Response, err error, answer any) error {
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 400 {
		return fmt.Errorf("%s: %s %s", response.Request.URL, response.Status, body)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}

// Root is the repository's.
func Root() (string, error) {
	folder, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(folder, "tests", "conformance")); missing == nil {
			return folder, nil
		}
		if folder == filepath.Dir(folder) {
			err = errors.New("run this inside the repository: no tests/conformance above")
		}
		folder = filepath.Dir(folder)
	}
	return "", err
}

// Python is the one that has mlx_grpc: MLX_GRPC_PYTHON, or the repository's own.
func Python(root string) string {
	if python := os.Getenv("MLX_GRPC_PYTHON"); python != "" {
		return python
	}
	return filepath.Join(root, ".venv", "bin", "python")
}
