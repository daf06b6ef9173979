package mlxgrpc

import pb "github.com/mlx-grpc/mlx-grpc/clients/go/mlxgrpcv1"

// Prompt asks to continue a text; set what else the request should say on the answer.
func Prompt(text string) *pb.GenerateRequest {
	return &pb.GenerateRequest{Input: &pb.GenerateRequest_Prompt{Prompt: text}}
}

// System is a turn with instructions that hold for the whole conversation.
func System(text string) *pb.Message { return message(pb.Role_ROLE_SYSTEM, text) }

// User is a turn of the person.
func User(text string) *pb.Message { return message(pb.Role_ROLE_USER, text) }

// Assistant is a turn of the model.
func Assistant(text string) *pb.Message { return message(pb.Role_ROLE_ASSISTANT, text) }

func message(role pb.Role, text string) *pb.Message {
	part := &pb.ContentPart{Part: &pb.ContentPart_Text{Text: text}}
	return &pb.Message{Role: role, Content: []*pb.ContentPart{part}}
}
