"""Every test here leaves nothing behind."""

from __future__ import annotations

from tests.helpers.proofs.leaks import grpc_warm as grpc_warm
from tests.helpers.proofs.leaks import nothing_is_left as nothing_is_left
