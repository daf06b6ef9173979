"""What a streamed message costs the Python client: the other clients' `make bench` runs this beside their own rounds.

    python clients/bench_python.py TARGET TOKENS

Prints one line of JSON: messages read, and wall and processor time for each in microseconds.
"""

import json
import sys
import time

from mlx_grpc.client import Client

WARM_UP_TOKENS = 500


def read(client: Client, max_tokens: int) -> int:
    """How many messages a stream of so many tokens has."""
    with client.stream("go on", max_tokens=max_tokens) as stream:
        return sum(1 for _ in stream)


def main(target: str, tokens: int) -> None:
    with Client(target) as client:
        read(client, WARM_UP_TOKENS)
        wall, processor = time.perf_counter(), time.process_time()
        messages = read(client, tokens)
        each = 1e6 / messages
        found = {
            "messages": messages,
            "wall_us": (time.perf_counter() - wall) * each,
            "cpu_us": (time.process_time() - processor) * each,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
