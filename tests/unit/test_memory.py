"""One allocator for all engines of a device: what each may have, and that nothing it holds back is held for ever."""

from __future__ import annotations

import pytest

from mlx_grpc.service.hosting.memory import KV_SHARE, DeviceMemory, NoRoom

GIBIBYTE = 1 << 30


def device(*weights: int, total: int = 16 * GIBIBYTE) -> tuple[DeviceMemory, list[str]]:
    """A device with engines "0", "1", ... of these weights, and who was told of changes."""
    told: list[str] = []
    memory = DeviceMemory()
    for number, weights_bytes in enumerate(weights):
        name = str(number)
        memory.loaded(name, total, weights_bytes, 0, lambda name=name: told.append(name))  # type: ignore[misc]
    told.clear()
    return memory, told


def test_caches_get_what_all_weights_leave() -> None:
    """Two models' weights are both taken off before any cache is."""
    memory, _ = device(4 * GIBIBYTE, 2 * GIBIBYTE)
    assert memory.kv_bytes() == int(10 * GIBIBYTE * KV_SHARE)


def test_what_one_has_reserved_the_others_have_not() -> None:
    """Reservations count for the others, not for their own engine."""
    memory, _ = device(GIBIBYTE, GIBIBYTE)
    memory.reserve("0", 3 * GIBIBYTE)
    assert memory.others_bytes("1") == 3 * GIBIBYTE
    assert memory.others_bytes("0") == 0


def test_the_others_are_told_when_memory_is_let_go() -> None:
    """So that who waits is admitted: by a smaller reservation, by an engine that ended, and not by a larger one."""
    memory, told = device(GIBIBYTE, GIBIBYTE)
    memory.reserve("0", 3 * GIBIBYTE)
    assert told == []
    memory.reserve("0", GIBIBYTE)
    assert told == ["1"]
    memory.unloaded("0")
    assert told == ["1", "1"]
    assert memory.others_bytes("1") == 0


def test_a_device_full_of_weights_is_no_device_without_a_limit() -> None:
    """0 would mean that anything fits."""
    memory, _ = device(20 * GIBIBYTE)
    assert memory.kv_bytes() == 1


def test_an_operators_limit_holds_over_what_the_device_has() -> None:
    """All engines together stay within it, and the next one is told what is left."""
    memory = DeviceMemory(8 * GIBIBYTE)
    memory.loaded("0", 64 * GIBIBYTE, 3 * GIBIBYTE, 0, lambda: None)
    assert memory.total_bytes == 8 * GIBIBYTE
    assert memory.limit_for_next() == 5 * GIBIBYTE


def test_an_engine_that_died_gives_its_memory_back() -> None:
    """Its weights and its reservation are gone from the books, and come again when another is loaded."""
    memory, _ = device(4 * GIBIBYTE, GIBIBYTE)
    memory.reserve("0", GIBIBYTE)
    memory.unloaded("0")
    assert memory.weights_bytes == GIBIBYTE
    memory.loaded("0", 16 * GIBIBYTE, 4 * GIBIBYTE, 0, lambda: None)
    assert (memory.weights_bytes, memory.total_bytes) == (5 * GIBIBYTE, 16 * GIBIBYTE)


@pytest.mark.parametrize("found_bytes", [2 * GIBIBYTE, 64 * GIBIBYTE])
def test_a_model_loaded_anew_has_what_is_there_now(found_bytes: int) -> None:
    """Alone on the device, the engine's last word holds, whether it found more than the first one or less."""
    memory, _ = device(GIBIBYTE, total=8 * GIBIBYTE)
    memory.unloaded("0")
    memory.loaded("0", found_bytes, GIBIBYTE, 0, lambda: None)
    assert memory.total_bytes == found_bytes
    assert memory.kv_bytes() == int((found_bytes - GIBIBYTE) * KV_SHARE)


def test_what_one_finds_beside_others_can_only_add() -> None:
    """It may have found less since they hold some of it; when it finds more, there is more."""
    memory, _ = device(GIBIBYTE, total=8 * GIBIBYTE)
    memory.loaded("1", 6 * GIBIBYTE, GIBIBYTE, 0, lambda: None)
    assert memory.total_bytes == 8 * GIBIBYTE
    memory.unloaded("1")
    memory.loaded("1", 32 * GIBIBYTE, GIBIBYTE, 0, lambda: None)
    assert memory.total_bytes == 32 * GIBIBYTE


def test_an_operators_limit_is_not_more_than_there_is() -> None:
    """A limit beyond the device promises nothing that is not there."""
    memory = DeviceMemory(1024 * GIBIBYTE)
    memory.loaded("0", 8 * GIBIBYTE, GIBIBYTE, 0, lambda: None)
    assert memory.total_bytes == 8 * GIBIBYTE


def test_a_model_that_would_have_no_room_for_caches_is_not_taken() -> None:
    """One line has the numbers, and the others keep what they had."""
    memory = DeviceMemory(8 * GIBIBYTE)
    memory.loaded("0", 64 * GIBIBYTE, 4 * GIBIBYTE, GIBIBYTE, lambda: None)
    before = memory.kv_bytes()
    with pytest.raises(NoRoom, match=str(8 * GIBIBYTE)):
        memory.loaded("1", 4 * GIBIBYTE, 4 * GIBIBYTE, 1, lambda: None)
    assert (memory.kv_bytes(), memory.weights_bytes) == (before, 4 * GIBIBYTE)


def test_a_model_may_not_take_the_room_of_another() -> None:
    """It would have enough for itself, and the one that is there already could serve nothing more."""
    memory = DeviceMemory(8 * GIBIBYTE)
    memory.loaded("0", 64 * GIBIBYTE, 4 * GIBIBYTE, 2 * GIBIBYTE, lambda: None)
    with pytest.raises(NoRoom):
        memory.loaded("1", 4 * GIBIBYTE, 3 * GIBIBYTE, 1, lambda: None)
    memory.loaded("1", 4 * GIBIBYTE, GIBIBYTE, 1, lambda: None)
