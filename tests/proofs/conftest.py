"""Every test here leaves nothing behind."""

from __future__ import annotations

from tests.helpers_proofs_leaks import grpc_warm as grpc_warm
from tests.helpers_proofs_leaks import nothing_is_left as nothing_is_left
