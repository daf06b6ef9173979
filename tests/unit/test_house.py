"""The rules of the house: imports point one way, and modules stay small."""

from __future__ import annotations

import sys

from tests.helpers.house import MODULES, PACKAGE, Module, chain_to, house_imports, room_of

LINES_AT_MOST = 250

# What each room may import of the house, beside itself. An edge that is not here points back up, or is new:
# think before adding it. Lazy imports inside functions count too.
MAY_IMPORT = {
    # the ground: no MLX, no protobuf, no grpc
    "errors": "",
    "request": "errors",
    "config": "errors",
    "listening": "",
    "ready_file": "",
    "bounds": "errors",
    # from the wire down to the engine
    "serving": "server preflight ready_file auth bounds models observe listening config request errors",
    "server": "preflight ready_file rpc http auth service models observe listening bounds config request errors",
    "preflight": "ready_file service models listening bounds config errors",
    "rpc": "v1 auth service models observe listening bounds config request errors",
    "http": "auth listening service models observe bounds config request errors",
    "service": "schedule engine models observe bounds config request errors",
    "schedule": "request errors",
    "engine": "models observe config request errors",
    "models": "observe config errors",
    "observe": "bounds config request errors",
    # beside it: who may call, and over what
    "auth": "listening bounds config errors",
    # from the user's side
    "cli": "bench check client auth serving server models observe config request errors v1",
    "check": "client request errors",
    "bench": "client request errors v1",
    "client": "v1 request errors",
    "v1": "",
    # at the edges
    "testing": "client server ready_file rpc http service schedule engine models observe config request errors v1",
    "__main__": "cli",
    "__init__": "",
}

# Libraries that these rooms may use; a room that is not here may use any.
MAY_USE = {
    "errors": "",
    "request": "",
    "schedule": "",
    "check": "",
    "client": "grpc grpc_health grpc_status google",
}

# How the names of the only modules that touch MLX begin. They run in a child process, never in the server's.
MLX_MODULES = (
    "mlx_grpc.engine.accel.cpu.attention",
    "mlx_grpc.engine.accel.cuda",
    "mlx_grpc.engine.batch",
    "mlx_grpc.engine.loading",
    "mlx_grpc.engine.mlx_engine",
    "mlx_grpc.engine.prefix",
    "mlx_grpc.engine.sampling",
)
MLX = {"mlx", "mlx_lm"}
# The server imports this one for its names; it imports MLX when it runs, in the child.
DOORS = {"mlx_grpc.engine.worker.open"}
SERVER_ROOMS = {
    "serving", "server", "preflight", "ready_file", "listening", "rpc", "http", "service", "schedule", "observe",
    "auth", "cli", "check", "bench", "client", "config", "request", "bounds",
}  # fmt: skip


def test_every_room_is_in_the_table() -> None:
    """A new folder or file under the package says first what it may import."""
    assert {module.room for module in MODULES.values()} <= MAY_IMPORT.keys()


def test_imports_point_one_way() -> None:
    """A module imports only its own room and those that the table gives it."""
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES.values()
        for name in sorted(house_imports(module))
        if room_of(name) not in {module.room, *MAY_IMPORT[module.room].split()}
        # `from mlx_grpc import __version__` is no room
        and (PACKAGE / room_of(name)).with_suffix(".py").exists() | (PACKAGE / room_of(name)).is_dir()
    ]
    assert not wrong


def test_the_table_has_no_circle() -> None:
    """Following the table downwards always ends."""
    below = {room: set(rooms.split()) for room, rooms in MAY_IMPORT.items()}
    while below:
        ground = {room for room, rooms in below.items() if not rooms & below.keys()}
        assert ground, f"a circle among {sorted(below)}"
        below = {room: rooms for room, rooms in below.items() if room not in ground}


def test_pure_rooms_use_no_libraries() -> None:
    """The ground and the schedule need the standard library alone; the client needs grpc and protobuf."""
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES.values()
        if module.room in MAY_USE
        for name in sorted(module.imports)
        if name.split(".")[0] not in {"mlx_grpc", *sys.stdlib_module_names, *MAY_USE[module.room].split()}
    ]
    assert not wrong


def test_schedule_has_no_clock_and_no_threads() -> None:
    """The schedule decides from what it is told: time comes in as a number."""
    forbidden = {"time", "datetime", "threading", "asyncio", "random", "os", "subprocess", "multiprocessing"}
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES.values()
        if module.room == "schedule"
        for name in sorted(module.imports)
        if name.split(".")[0] in forbidden
    ]
    assert not wrong


def uses_mlx(module: Module) -> bool:
    return not MLX.isdisjoint(name.split(".")[0] for name in module.imports)


def test_only_the_engine_room_touches_mlx() -> None:
    """MLX is imported by the few modules that run in a child process."""
    users = [module.name for module in MODULES.values() if uses_mlx(module)]
    assert not [name for name in users if not name.startswith(MLX_MODULES)]


def test_the_server_process_never_reaches_mlx() -> None:
    """No chain of imports leads from the server's rooms to a module that imports MLX, but for the door."""
    start = {module.name for module in MODULES.values() if module.room in SERVER_ROOMS}
    chains = [chain_to(module.name, start, DOORS) for module in MODULES.values() if uses_mlx(module)]
    assert not [" > ".join(chain) for chain in chains if chain]


def test_modules_are_small() -> None:
    """A module past the limit wants splitting by noun."""
    lengths = {name: len(module.path.read_text(encoding="utf-8").splitlines()) for name, module in MODULES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > LINES_AT_MOST}
