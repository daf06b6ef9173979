"""The protoc inside grpcio-tools, as a plugin that buf can call.

buf compiles the protos itself and speaks protoc's plugin protocol: a CodeGeneratorRequest on standard input,
a CodeGeneratorResponse on standard output. grpcio-tools is protoc as a whole, so this hands it buf's
descriptors and sends back the files it writes: `_pb2.py` and `_pb2.pyi` for each proto and, for those that
hold a service, `_pb2_grpc.py` and its types, `_pb2_grpc.pyi`, which mypy-protobuf makes.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc

TYPES = f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).with_name('protoc-gen-mypy_grpc')}"


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Run protoc on the request's descriptors; what it says on failure goes to standard error."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    wanted = list(request.file_to_generate)
    with_service = [file.name for file in request.proto_file if file.service and file.name in wanted]
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "descriptors.binpb")
        descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(folder, "out")
        out.mkdir()
        given = ["protoc", f"--descriptor_set_in={descriptors}"]
        runs = [[*given, f"--python_out={out}", f"--pyi_out={out}", *wanted]]
        if with_service:
            runs.append([*given, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", TYPES, *with_service])
        for arguments in runs:
            if protoc.main(arguments) != 0:
                response.error = "protoc failed; its own words are above"
                return response
        for path in sorted(file for file in out.rglob("*") if file.is_file()):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text(encoding="utf-8"))
    return response


if __name__ == "__main__":
    sys.stdout.buffer.write(
        generate(plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())).SerializeToString()
    )
