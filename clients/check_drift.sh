#!/bin/sh
# Fails when the clients' committed code is not what the protos give: edited by hand, or `make client-protos` was forgotten.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
.venv/bin/python clients/google_image.py .tools/google.binpb
.venv/bin/buf generate --template clients/buf.gen.yaml --output "$fresh"
.venv/bin/buf generate --template clients/buf.gen.google.yaml --output "$fresh"
status=0
for folder in clients/go/mlxgrpcv1 clients/typescript/src/gen clients/java/src/main/generated clients/rust/src/gen; do
  diff -r "$folder" "$fresh/$folder" || status=1
done
[ "$status" = 0 ] || echo "the clients' code is not what the protos give: run \`make client-protos\` and commit it" >&2
exit "$status"
