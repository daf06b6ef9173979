/**
 * Client of mlx_grpc: {@link io.github.mlxgrpc.Client} opens a connection, its methods take and give the generated messages
 * of {@code io.github.mlxgrpc.v1}, {@link io.github.mlxgrpc.Stream} reads an answer as it comes, and every failure is an
 * {@link io.github.mlxgrpc.MlxGrpcError}.
 */
package io.github.mlxgrpc;
