// Plays the vectors of tests/conformance through the Go client, and reports as the README there says.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mlx-grpc/mlx-grpc/clients/go/internal/helper"
)

func main() {
	failed, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

func run() (failed bool, err error) {
	vectors, err := readVectors()
	if err != nil {
		return false, err
	}
	program, err := helper.Start()
	if err != nil {
		return false, err
	}
	defer program.End()
	var known struct{ Features []string }
	if err := program.Get("features", &known); err != nil {
		return false, err
	}
	results := map[string]string{}
	for _, one := range vectors {
		result := "pass"
		if lacking := without(one.Needs, known.Features); len(lacking) > 0 {
			result = "skip: this build has no " + strings.Join(lacking, ", ")
		} else if found := one.play(program); len(found) > 0 {
			result, failed = "fail: "+strings.ReplaceAll(strings.Join(found, "; "), "\n", `\n`), true
		}
		results[one.Name] = result
		word, why, _ := strings.Cut(result, ":")
		if why != "" {
			why = ":" + why
		}
		fmt.Println(strings.ToUpper(word), one.Name+why)
	}
	return failed, report(results)
}

func readVectors() (vectors []vector, err error) {
	root, err := helper.Root()
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(root, "tests", "conformance", "*.json"))
	for _, path := range paths {
		var some []vector
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &some); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		vectors = append(vectors, some...)
	}
	return vectors, err
}

func without(wanted, known []string) []string {
	return slices.DeleteFunc(slices.Clone(wanted), func(one string) bool { return slices.Contains(known, one) })
}

// report writes the results where MLX_GRPC_CONFORMANCE_OUT says.
func report(results map[string]string) error {
	path := os.Getenv("MLX_GRPC_CONFORMANCE_OUT")
	if path == "" {
		return nil
	}
	data, err := json.Marshal(map[string]any{"client": "go", "results": results})
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
