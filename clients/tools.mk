# The programs that the tests of deploy/ run and that generate the clients' code: by name and version, from their own
# registries, into .tools/ at the root. The Makefile includes this file; `make -f clients/tools.mk tools` does without.
TOOLS := $(CURDIR)/.tools
CLIENT_BUF := .venv/bin/buf

GRPCURL := github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
GRPC_HEALTH_PROBE := github.com/grpc-ecosystem/grpc-health-probe@v0.4.61
GHZ := github.com/bojand/ghz/cmd/ghz@v0.120.0

PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
PROTOC_GEN_ES := @bufbuild/protoc-gen-es@2.17.0
PROTOC_GEN_GRPC_JAVA := 1.80.0
PROTOC_GEN_PROST := protoc-gen-prost@0.5.0
PROTOC_GEN_TONIC := protoc-gen-tonic@0.5.0
# protobuf-java must not be older than the protoc that made its code.
PROTOC := 4.35.1

# Maven's words for this machine.
MAVEN_MACHINE := $(if $(filter Darwin,$(shell uname -s)),osx,linux)-$(if $(filter arm64 aarch64,$(shell uname -m)),aarch_64,x86_64)
FROM_MAVEN := mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -Dmdep.stripVersion -DoutputDirectory=$(TOOLS)/java

.PHONY: tools generators client-protos client-drift clients

tools: $(TOOLS)/grpcurl.stamp $(TOOLS)/grpc-health-probe.stamp $(TOOLS)/ghz.stamp ## grpcurl, grpc_health_probe, ghz: for the tests of deploy/

generators: $(TOOLS)/go-generators.stamp $(TOOLS)/es.stamp $(TOOLS)/java.stamp $(TOOLS)/rust.stamp

# Each language's own tests, then the conformance vectors; a language that is not installed is left out, and said so.
CONFORMANCE := $(TOOLS)/conformance
REPORT = MLX_GRPC_PYTHON=$(CURDIR)/.venv/bin/python MLX_GRPC_CONFORMANCE_OUT=$(CONFORMANCE)/$(1).json
CLIENTS := $(foreach pair,go:go typescript:npm java:mvn rust:cargo,\
  $(if $(shell command -v $(lastword $(subst :, ,$(pair)))),$(firstword $(subst :, ,$(pair))),$(info left out: $(pair))))

clients: $(CLIENTS:%=client-%) ## build, lint and test the Go, TypeScript, Java and Rust clients
	@mkdir -p $(CONFORMANCE)
	CLIENTS_ARE_BUILT=1 .venv/bin/pytest tests/integration/test_tools_docs_clients.py
	$(call REPORT,python) .venv/bin/python -m tests.conformance.runner_python
	.venv/bin/python clients/conformance_table.py $(CONFORMANCE)

client-%:
	@mkdir -p $(CONFORMANCE)
	@rm -f $(CONFORMANCE)/$*.json
	$(call REPORT,$*) $(MAKE) -C clients/$* build lint test conformance

client-protos: generators ## generate the code of all clients from the protos
	rm -rf clients/go/mlxgrpcv1 clients/typescript/src/gen clients/java/src/main/generated clients/rust/src/gen
	$(CLIENT_BUF) generate --template clients/buf.gen.yaml
	.venv/bin/python clients/google_image.py $(TOOLS)/google.binpb
	$(CLIENT_BUF) generate --template clients/buf.gen.google.yaml
	.venv/bin/python tools/client_protos.py --write

client-drift: generators ## fail when the clients' code is not what the protos give
	sh clients/check_drift.sh

$(TOOLS)/grpcurl.stamp:
	GOBIN=$(TOOLS)/bin go install $(GRPCURL)
	@touch $@

$(TOOLS)/grpc-health-probe.stamp:
	GOBIN=$(TOOLS)/bin go install $(GRPC_HEALTH_PROBE)
	@touch $@

$(TOOLS)/ghz.stamp:
	GOBIN=$(TOOLS)/bin go install $(GHZ)
	@touch $@

$(TOOLS)/go-generators.stamp:
	GOBIN=$(TOOLS)/bin go install $(PROTOC_GEN_GO)
	GOBIN=$(TOOLS)/bin go install $(PROTOC_GEN_GO_GRPC)
	@touch $@

$(TOOLS)/es.stamp:
	npm install --silent --no-fund --no-audit --prefix $(TOOLS)/npm $(PROTOC_GEN_ES)
	@touch $@

$(TOOLS)/java.stamp:
	$(FROM_MAVEN) -Dartifact=io.grpc:protoc-gen-grpc-java:$(PROTOC_GEN_GRPC_JAVA):exe:$(MAVEN_MACHINE)
	$(FROM_MAVEN) -Dartifact=com.google.protobuf:protoc:$(PROTOC):exe:$(MAVEN_MACHINE)
	chmod +x $(TOOLS)/java/*.exe
	ln -sf ../java/protoc-gen-grpc-java-$(MAVEN_MACHINE).exe $(TOOLS)/bin/protoc-gen-grpc-java
	ln -sf ../java/protoc-$(MAVEN_MACHINE).exe $(TOOLS)/bin/protoc
	@touch $@

$(TOOLS)/rust.stamp:
	cargo install --quiet --locked --root $(TOOLS) $(PROTOC_GEN_PROST)
	cargo install --quiet --locked --root $(TOOLS) $(PROTOC_GEN_TONIC)
	@touch $@
