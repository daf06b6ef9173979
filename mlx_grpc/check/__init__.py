"""The acceptance suite behind `mlx-grpc check`: what any server with our protos must do while many call it at once.

It knows the server by the wire alone (gRPC, and HTTP where it is told a URL), so a server in another language can be
checked as well. `suite.run` runs it; what a test found is an `Outcome`.
"""

from mlx_grpc.check.outcome import Outcome, Report, Speed, State
from mlx_grpc.check.subject import Settings
from mlx_grpc.check.suite import TESTS, Check, run

__all__ = ["TESTS", "Check", "Outcome", "Report", "Settings", "Speed", "State", "run"]
