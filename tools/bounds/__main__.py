"""`python -m tools.bounds`: write the table of bounds into SECURITY.md; with `--check`, fail where it is not that."""

from __future__ import annotations

import sys

from tools.bounds.table import DOCUMENT, faults, written


def main(arguments: list[str]) -> int:
    """The exit code."""
    found = faults()
    text = written()
    if arguments == ["--check"]:
        if text != DOCUMENT.read_text(encoding="utf-8"):
            found.append(f"{DOCUMENT.name} does not have the bounds of the code: run `make bounds` and commit it")
    else:
        DOCUMENT.write_text(text, encoding="utf-8")
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
