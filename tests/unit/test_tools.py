"""The project's own scripts: which extra is picked for a machine, and how drift is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.bounds.row import Row, missing_tests, shown
from tools.bounds.table import faults
from tools.check_drift import differences

PICK_EXTRA = Path(__file__).resolve().parents[2] / "tools" / "pick_extra.sh"


def put_program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("system", "nvidia_smi", "extra"),
    [
        ("Darwin", "echo 580.95.05", "serve"),
        ("Linux", "echo 580.95.05", "cuda13"),
        ("Linux", "printf '590.1\\n590.1\\n'", "cuda13"),
        ("Linux", "echo 570.172.08", "cuda12"),
        ("Linux", "echo 470.256.02", "cpu"),
        ("Linux", "echo NVIDIA-SMI has failed; exit 9", "cpu"),
        ("Linux", None, "cpu"),
    ],
)
def test_the_extra_follows_system_and_driver(tmp_path: Path, system: str, nvidia_smi: str | None, extra: str) -> None:
    """A Mac serves with Metal, a new driver with CUDA 13, an older one with CUDA 12, all else on the CPU."""
    put_program(tmp_path, "uname", f"echo {system}")
    if nvidia_smi is not None:
        put_program(tmp_path, "nvidia-smi", nvidia_smi)
    for tool in ("head", "cut", "sh"):
        found = next(path for folder in ("/usr/bin", "/bin") if (path := Path(folder, tool)).exists())
        (tmp_path / tool).symlink_to(found)
    ran = subprocess.run(
        ["/bin/sh", PICK_EXTRA], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"{extra}\n"


def test_drift_names_each_file_and_how_it_differs() -> None:
    """Missing, left over and changed files each get a line; equal ones get none."""
    committed = {"same_pb2.py": b"1", "old_pb2.py": b"1", "edited_pb2.py": b"1"}
    fresh = {"same_pb2.py": b"1", "new_pb2.py": b"1", "edited_pb2.py": b"2"}
    assert differences(committed, fresh) == [
        "missing: mlx_grpc/v1/new_pb2.py",
        "left over: mlx_grpc/v1/old_pb2.py",
        "differs: mlx_grpc/v1/edited_pb2.py",
    ]


def test_the_table_of_bounds_is_whole() -> None:
    """Each public bound has a row, and each row's tests exist."""
    assert faults() == []


def test_a_row_says_todays_value_in_its_unit() -> None:
    """Bytes and seconds as people write them; a setting by its flag."""
    assert shown("config:max_request_bytes") == "`--max-request-bytes` (4 MiB)"
    assert shown("config:client_rows") == "`--client-rows`"
    assert shown("rpc.arrivals:GRACE_SECONDS") == "100 ms"
    assert shown("models.json_file:BOUNDS|config.json|most_bytes") == "4 MiB"
    assert shown("rpc.wire_scan:MAX_FIELDS") == "65,536"


def test_a_test_that_does_not_exist_is_found() -> None:
    """Whether its file or its function is missing."""
    row = Row("{}", (), "nothing", ("unit/test_tools.py::test_nothing", "unit/test_none.py::test_nothing"))
    assert missing_tests(row) == list(row.tests)
