"""Statuses become the classes that the server raised."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc import errors
from mlx_grpc.client.errors import DETAILS_KEY, Cancelled, ResourceExhausted, from_status
from mlx_grpc.rpc.status import to_status


@pytest.mark.parametrize("reason", sorted(errors.BY_REASON))
def test_the_servers_error_comes_back_whole(reason: str) -> None:
    """What the server makes of an error, the client makes into the same error again."""
    sent = errors.BY_REASON[reason](
        "no", field="stop.max_tokens", retry_after_seconds=1.25, resource="tiny", metadata={"limit": "8"}
    )
    status = to_status(sent)
    trailing = (*(status.trailing_metadata or ()), ("x-request-id", "mine"), ("x-generation-id", "gen-1"))
    got = from_status(status.code.name, status.details, trailing)
    assert type(got) is type(sent)
    assert (got.message, got.field, got.retry_after_seconds, got.resource) == ("no", "stop.max_tokens", 1.25, "tiny")
    facts = {"limit": "8", "grpc_code": sent.code, "request_id": "mine", "generation_id": "gen-1"}
    assert got.metadata == facts


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UNAVAILABLE", errors.Unavailable),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        ("CANCELLED", Cancelled),
        ("INVALID_ARGUMENT", errors.InvalidField),
        ("RESOURCE_EXHAUSTED", ResourceExhausted),
        ("DATA_LOSS", errors.MlxGrpcError),
    ],
)
def test_without_details_the_code_decides(code: str, kind: type[errors.MlxGrpcError]) -> None:
    """gRPC's own statuses carry no details: the nearest class, and the code in the metadata."""
    got = from_status(code, "words", ())
    assert type(got) is kind
    assert got.metadata == {"grpc_code": code}


def packed(reason: str, domain: str) -> bytes:
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    return status_pb2.Status(code=14, message="m", details=[detail]).SerializeToString()


def test_a_reason_of_a_newer_server_is_kept() -> None:
    """The nearest class by code, with the reason for those who know it."""
    got = from_status("UNAVAILABLE", "m", ((DETAILS_KEY, packed("MOON_PHASE", errors.DOMAIN)),))
    assert type(got) is errors.Unavailable
    assert got.metadata["reason"] == "MOON_PHASE"


def test_another_domains_reason_is_not_ours() -> None:
    """A proxy's QUEUE_FULL says nothing about our queue."""
    got = from_status("UNAVAILABLE", "m", ((DETAILS_KEY, packed("QUEUE_FULL", "proxy.example")),))
    assert type(got) is errors.Unavailable


@given(st.binary())
def test_broken_details_never_hide_the_status(details: bytes) -> None:
    """Bytes that do not parse leave the code's class."""
    assert isinstance(from_status("INTERNAL", "m", ((DETAILS_KEY, details),)), errors.MlxGrpcError)
