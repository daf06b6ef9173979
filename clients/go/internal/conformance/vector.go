package main

import (
	"encoding/json"
	"fmt"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
	"github.com/mlx-grpc/mlx-grpc/clients/go/internal/helper"
)

type vector struct {
	Name   string
	Needs  []string
	Server json.RawMessage
	Client struct {
		Token     string
		TLS       bool
		MutualTLS bool `json:"mutual_tls"`
		Retry     *bool
	}
	Steps []step
}

// step is a call, a command, a wait, or a look at the server: the one whose key is there.
type step struct {
	Call              string
	Request           json.RawMessage
	DeadlineMS        int `json:"deadline_ms"`
	Name              string
	Background        bool
	CancelAfterDeltas int                     `json:"cancel_after_deltas"`
	ReadDelay         struct{ Every, MS int } `json:"read_delay"`
	Expect            map[string]any

	Control string
	Body    json.RawMessage
	Wait    string
	AtLeast *int `json:"at_least"`
	AtMost  *int `json:"at_most"`
	Cancel  string
	Join    string
	State   map[string]any
}

// play starts the vector's server and plays its steps; it gives what differs.
func (v vector) play(program *helper.Program) (differences []string) {
	client, err := v.open(program)
	if err != nil {
		return []string{err.Error()}
	}
	defer client.Close()
	background := map[string]*call{}
	for _, step := range v.Steps {
		switch {
		case step.Call != "":
			started := start(client, step)
			if step.Background {
				background[started.name()] = started
			} else {
				differences = append(differences, started.end()...)
			}
		case step.Cancel != "":
			background[step.Cancel].leave()
		case step.Join != "":
			differences = append(differences, background[step.Join].end()...)
			delete(background, step.Join)
		default:
			differences = append(differences, step.tell(program)...)
		}
	}
	for _, one := range background {
		differences = append(differences, one.end()...)
	}
	return differences
}

// open starts the vector's server and gives the client that the vector asks for.
func (v vector) open(program *helper.Program) (*mlxgrpc.Client, error) {
	var facts struct {
		GRPC             string
		RootCertificates string `json:"root_certificates"`
		PrivateKey       string `json:"private_key"`
		CertificateChain string `json:"certificate_chain"`
	}
	if err := program.Post("server", v.Server, &facts); err != nil {
		return nil, err
	}
	options := mlxgrpc.ClientOptions{Token: v.Client.Token, NoRetry: v.Client.Retry != nil && !*v.Client.Retry}
	if v.Client.TLS {
		options.RootCertificates = []byte(facts.RootCertificates)
	}
	if v.Client.MutualTLS {
		options.PrivateKey, options.CertificateChain = []byte(facts.PrivateKey), []byte(facts.CertificateChain)
	}
	return mlxgrpc.NewClient(facts.GRPC, options)
}

// tell plays a step that is for the helper program.
func (s step) tell(program *helper.Program) []string {
	var err error
	switch {
	case s.Control != "":
		body := s.Body
		if body == nil {
			body = json.RawMessage("{}")
		}
		err = program.Post(s.Control, body, nil)
	case s.Wait != "":
		body := map[string]any{"for": s.Wait}
		if s.AtLeast != nil {
			body["at_least"] = *s.AtLeast
		}
		if s.AtMost != nil {
			body["at_most"] = *s.AtMost
		}
		err = program.Post("wait", body, nil)
	case s.State != nil:
		return s.look(program)
	default:
		return []string{fmt.Sprintf("no such step: %+v", s)}
	}
	if err != nil {
		return []string{err.Error()}
	}
	return nil
}

func (s step) look(program *helper.Program) (differences []string) {
	state := map[string]float64{}
	if err := program.Get("state", &state); err != nil {
		return []string{err.Error()}
	}
	for name, wanted := range s.State {
		if !holds(wanted, state[name]) {
			differences = append(differences, fmt.Sprintf("state %s is %v, not %v", name, state[name], wanted))
		}
	}
	return differences
}

func holds(wanted any, found float64) bool {
	bounds, ok := wanted.(map[string]any)
	if !ok {
		return wanted == found
	}
	least, hasLeast := bounds["at_least"].(float64)
	most, hasMost := bounds["at_most"].(float64)
	return (!hasLeast || found >= least) && (!hasMost || found <= most)
}
