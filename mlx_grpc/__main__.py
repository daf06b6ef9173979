"""`python -m mlx_grpc` is `mlx-grpc`."""

import sys

from mlx_grpc.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
