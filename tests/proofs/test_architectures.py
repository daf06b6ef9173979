"""Every type of model that can be made small, and random schedules on each kind of cache. Each model has a process of
its own: code that ends it is one fault among others."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.helpers.models.catalog import MODELS
from tests.helpers.models.kinds import KINDS
from tests.helpers.proofs.servers import tell
from tests.sweep.cases import Case, scenario_cases, schedule_cases
from tests.sweep.document import table
from tests.sweep.parent import Report, sweep

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="equality is the CPU's"),
]

FULL_SCHEDULES = 50


def _swept(names: list[str], cases: list[Case]) -> list[Report]:
    reports = sweep(names, cases)
    tell("\n" + "\n".join(table(reports)))
    return reports


def test_all_types_answer_as_alone(full_size: bool) -> None:
    """In all scenarios, in both orders of steps; in small, two types in one scenario."""
    if full_size:
        reports = _swept(list(MODELS), scenario_cases())
    else:
        reports = _swept(["llama", "qwen2_vl"], scenario_cases("A"))
    assert [fault for report in reports for fault in report.faults()] == []


def test_random_schedules_on_each_kind_of_cache(full_size: bool) -> None:
    """Rows of all lengths arrive, leave and resume at random steps, with and without a prefix cache. The seeds are 0 to
    49, each in both orders of steps; in small, one schedule on one model."""
    names = [name for models in KINDS.values() for name in models]
    reports = _swept(names, schedule_cases(FULL_SCHEDULES)) if full_size else _swept(names[:1], schedule_cases(1))
    assert [fault for report in reports for fault in report.faults()] == []
