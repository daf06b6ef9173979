"""Writes a buf image of what the TypeScript client needs beside our protos, out of the Python packages that have it.

python clients/google_image.py FILE
"""

import sys
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

FILES = (error_details_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)


def add(file: Any, image: FileDescriptorSet) -> None:
    """The file after all that it imports, each once."""
    for imported in file.dependencies:
        add(imported, image)
    if file.name not in {known.name for known in image.file}:
        file.CopyToProto(image.file.add())


if __name__ == "__main__":
    image = FileDescriptorSet()
    for file in FILES:
        add(file, image)
    Path(sys.argv[1]).write_bytes(image.SerializeToString())
