"""The wire contract in Python: generated from `protos/mlx_grpc/v1` by `make protos`, never edited."""
