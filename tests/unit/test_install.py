"""Which process needs which libraries: `pip install mlx-grpc` alone gives a client and a command line."""

from __future__ import annotations

import subprocess
import sys

from tests.helpers.house import MODULES, ROOT

# What only a server needs. typer brings pydantic, so the command line has it; the client must not want it.
SERVER_LIBRARIES = (
    "mlx mlx_lm transformers tokenizers huggingface_hub numpy msgspec pydantic_settings starlette uvicorn "
    "prometheus_client grpc_reflection"
)

IMPORT_WITHOUT = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

ABSENT = set(sys.argv[1].split())
sys.meta_path.insert(0, Absent())
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def import_without(absent: str, rooms: set[str]) -> None:
    """Import all modules of the rooms, in a process where the libraries `absent` cannot be found."""
    names = [module.name for module in MODULES.values() if module.room in rooms]
    assert names, f"nothing in {rooms}"
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT, absent, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_the_client_needs_grpc_and_protobuf_only() -> None:
    """Every module of the client imports where no library but its own is installed."""
    import_without(f"{SERVER_LIBRARIES} pydantic typer rich", {"client"})


def test_the_command_line_needs_no_server_library() -> None:
    """Every command imports where only the client's and the terminal's libraries are installed."""
    import_without(SERVER_LIBRARIES, {"cli", "__main__"})


def test_the_server_needs_no_mlx_in_its_own_process() -> None:
    """Every module of the server's side imports where MLX is missing: only the child needs it."""
    import_without("mlx mlx_lm", {"rpc", "http", "service", "schedule", "observe"})
