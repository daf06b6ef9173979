"""Errors as statuses: complete, stable, and never larger than a header may be."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc import errors
from mlx_grpc.errors import BY_REASON, InvalidField, MlxGrpcError, ModelNotFound, QueueFull
from mlx_grpc.rpc.status import to_status

DETAILS_BYTES_AT_MOST = 4096


def details(error: MlxGrpcError) -> status_pb2.Status:
    (pair,) = to_status(error).trailing_metadata
    status = status_pb2.Status()
    assert isinstance(pair[1], bytes)
    status.ParseFromString(pair[1])
    return status


@pytest.mark.parametrize("kind", BY_REASON.values())
def test_every_error_has_its_code_and_reason(kind: type[MlxGrpcError]) -> None:
    """The code of its class, and an ErrorInfo with its reason and our domain first."""
    status = to_status(kind("words"))
    assert (status.code.name, status.details) == (kind.code, "words")
    info = error_details_pb2.ErrorInfo()
    assert details(kind("words")).details[0].Unpack(info)
    assert (info.reason, info.domain) == (kind.reason, "mlx_grpc")


def test_reasons_are_unique() -> None:
    """A program that compares reasons never confuses two errors."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MlxGrpcError)]
    reasons = [kind.reason for kind in kinds if kind.reason]
    assert len(reasons) == len(set(reasons))
    assert set(reasons) == set(BY_REASON)


def test_details_that_apply() -> None:
    """RetryInfo, BadRequest and ResourceInfo only where there is something to say."""
    kinds = {
        (): InvalidField("no"),
        ("RetryInfo",): QueueFull("no", retry_after_seconds=0.25),
        ("BadRequest",): InvalidField("no", field="prompt"),
        ("ResourceInfo",): ModelNotFound("no", resource="m"),
    }
    for names, error in kinds.items():
        found = [detail.TypeName().rpartition(".")[2] for detail in details(error).details]
        assert found == ["ErrorInfo", *names]


@given(
    st.text(st.characters(), max_size=3000),
    st.text(st.characters(), max_size=3000),
    st.dictionaries(st.text(st.characters(), max_size=300), st.text(st.characters(), max_size=3000), max_size=20),
)
def test_details_stay_small_whatever_a_client_sent(message: str, field: str, metadata: dict[str, str]) -> None:
    """Under 4 KiB together, halves of surrogate pairs and all."""
    kind = ModelNotFound(message, field=field, resource=field, metadata=metadata, retry_after_seconds=1.0)
    assert details(kind).ByteSize() <= DETAILS_BYTES_AT_MOST
