"""Fail when `mlx_grpc/v1` is not what the protos give: edited by hand, or `make protos` was forgotten."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATED = Path("mlx_grpc/v1")


def generated_files(root: Path) -> dict[str, bytes]:
    """The generated files under `root`, by name. `__init__.py` is ours and not among them."""
    return {path.name: path.read_bytes() for path in (root / GENERATED).glob("*_pb2*.py*")}


def differences(committed: dict[str, bytes], fresh: dict[str, bytes]) -> list[str]:
    """One line for each file that is missing, left over or different."""
    lines = [f"missing: {GENERATED / name}" for name in sorted(fresh.keys() - committed.keys())]
    lines += [f"left over: {GENERATED / name}" for name in sorted(committed.keys() - fresh.keys())]
    both = sorted(committed.keys() & fresh.keys())
    return lines + [f"differs: {GENERATED / name}" for name in both if committed[name] != fresh[name]]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        buf = ROOT / ".venv/bin/buf"
        if subprocess.run([buf, "generate", "--output", folder], cwd=ROOT, check=False).returncode != 0:
            return 1
        found = differences(generated_files(ROOT), generated_files(Path(folder)))
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("mlx_grpc/v1 is not what the protos give: run `make protos` and commit it", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
