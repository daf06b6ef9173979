"""Whether the clients' generated code belongs to the protos as they are, without the generators of four languages.

    python tools/client_protos.py --write     after generating (make client-protos)
    python tools/client_protos.py             exit code 1 when the protos have changed since

`make client-drift` generates again and compares every file; this compares one sum.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUM = ROOT / "clients" / "protos.sha256"


def current_sum() -> str:
    """Of the protos and of what says how code is made from them."""
    files = [*sorted((ROOT / "protos").rglob("*.proto")), *sorted((ROOT / "clients").glob("buf.gen*.yaml"))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def main() -> int:
    """Write or compare."""
    if "--write" in sys.argv:
        SUM.write_text(current_sum() + "\n", encoding="ascii")
        return 0
    if SUM.exists() and SUM.read_text(encoding="ascii").strip() == current_sum():
        return 0
    print("the clients' code is older than the protos: run `make client-protos`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
