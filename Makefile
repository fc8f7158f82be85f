SHELL := /bin/bash
PY := .venv/bin/python
.PHONY: help proto
help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
proto: ## regenerate the stubs in dtf/api/v1 from proto/
	PATH="$$PWD/.venv/bin:$$PATH" buf generate
	$(PY) -m grpc_tools.protoc -Iproto --grpc_python_out=. proto/dtf/api/v1/*_service.proto
	rm -f dtf/api/v1/{common,events,scaling}_pb2_grpc.py*
