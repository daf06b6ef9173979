"""`python -m tests.sweep [NAME...]`: all types of models, or those named, through the engine. Without names it writes
docs/models.md. The exit code is 1 when something is not right, 2 where that cannot be found out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm.utils import MODEL_REMAPPING

from tests.helpers.models.catalog import MODELS, NOT_MADE
from tests.sweep.cases import scenario_cases, schedule_cases
from tests.sweep.document import document, table
from tests.sweep.parent import Report, sweep

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def main(arguments: list[str]) -> int:
    """The exit code."""
    options = _options(arguments)
    if mx.default_device().type != mx.DeviceType.cpu:
        _say("only a CPU in float32 gives equal answers: run this where MLX has no GPU")
        return 2
    cases = scenario_cases() + schedule_cases(options.schedules)
    reports = sweep(options.names or list(MODELS), cases, _tell)
    faults = [fault for report in reports for fault in report.faults()]
    if options.names:
        _say("\n".join(table(reports)))
    else:
        options.out.write_text(document(reports, NOT_MADE, MODEL_REMAPPING), encoding="utf-8")
    _say(f"{len(reports)} models, {len(faults)} faults")
    return 1 if faults else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", choices=[*MODELS, []], help="a model of the catalog; default all"
    )
    parser.add_argument("--schedules", type=int, default=0, metavar="N", help="random schedules for each model as well")
    parser.add_argument("--out", type=Path, default=DOCUMENT, metavar="FILE", help="where the table goes")
    return parser.parse_args(arguments)


def _tell(report: Report) -> None:
    faults = report.faults()
    said = f"{report.name}: {report.batching or '-'}, {report.load}, {len(faults)} faults"
    _say("\n  ".join([said, *faults]))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
