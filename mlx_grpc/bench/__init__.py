"""A load generator for servers with our protos and for OpenAI-compatible HTTP servers; `mlx-grpc bench` is its door.

    from mlx_grpc.bench import load, prompts, stats
    from mlx_grpc.bench.over_grpc import GrpcDriver

    asks = prompts.make_asks(prompts.parse_mix("128:64"), count=64, seed=0)
    async with GrpcDriver("localhost:50051") as driver:
        print(stats.summarise(await load.closed_loop(driver, asks, streams=8)))

Arrivals, mixes and statistics are pure. Both drivers fill in the same `Record`, so that servers of the two kinds are
measured by the same clock at the same points: bytes in, a delivery seen.
"""
