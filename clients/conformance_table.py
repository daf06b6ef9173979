"""Prints the vectors by the clients that played them, as a Markdown table.

    python clients/conformance_table.py FOLDER

FOLDER holds the reports that tests/conformance/README.md describes, one a client.
"""

import json
import sys
from pathlib import Path

WORDS = {"pass": "yes", "skip": "skipped", "fail": "NO"}


def table(reports: dict[str, dict[str, str]]) -> str:
    """One line a vector, one column a client; `-` where a client has not played it."""
    names = list(dict.fromkeys(name for results in reports.values() for name in results))
    lines = [f"| vector | {' | '.join(reports)} |", f"|---|{'---|' * len(reports)}"]
    for name in names:
        cells = [WORDS.get(results.get(name, "").partition(":")[0], "-") for results in reports.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    passed = [f"{list(results.values()).count('pass')} of {len(names)}" for results in reports.values()]
    return "\n".join([*lines, f"| **passed** | {' | '.join(passed)} |"])


def main() -> int:
    reports = {}
    for path in sorted(Path(sys.argv[1]).glob("*.json"), key=lambda path: (path.stem != "python", path.stem)):
        report = json.loads(path.read_text(encoding="utf-8"))
        reports[report["client"]] = report["results"]
    print(table(reports))
    return 1 if any(result.startswith("fail") for results in reports.values() for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
