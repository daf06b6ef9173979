/** A client of mlx_grpc, a gRPC inference service for MLX language models. */

export { Client, type HealthStatus } from "./client.js";
export * from "./errors.js";
export * from "./messages.js";
export { DEFAULT_TARGET, VERSION, type CallOptions, type ClientOptions } from "./options.js";
export { type Stream } from "./stream.js";

export * from "./gen/mlx_grpc/v1/chat_pb.js";
export * from "./gen/mlx_grpc/v1/generation_pb.js";
export * from "./gen/mlx_grpc/v1/inference_service_pb.js";
export * from "./gen/mlx_grpc/v1/model_pb.js";
export * from "./gen/mlx_grpc/v1/model_service_pb.js";
export * from "./gen/mlx_grpc/v1/server_pb.js";
export * from "./gen/mlx_grpc/v1/server_service_pb.js";
export * from "./gen/mlx_grpc/v1/tokenizer_service_pb.js";
