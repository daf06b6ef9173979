"""Looks at what the settings name on this machine, before anything listens or loads: hosts, paths and models.

Every finding is one line that names the flag. What only the loading can tell is the model's own failure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mlx_grpc import ready_file
from mlx_grpc.bounds import descriptors
from mlx_grpc.config import Config, ConfigError
from mlx_grpc.listening import check_host, check_socket
from mlx_grpc.models.cache import StorageError
from mlx_grpc.models.folder import FolderFacts
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.ready_file import ReadyFileError
from mlx_grpc.service.hosting.sources import Located, ModelSource, model_source


def check(config: Config) -> None:
    """Raises ConfigError, or ListenError for hosts and sockets."""
    _check_open_files(config)
    check_host(config.host, "--host")
    check_host(config.admin_host, "--admin-host")
    if config.grpc_socket:
        check_socket(config.grpc_socket, "--grpc-socket")
    if config.ready_file:
        try:
            ready_file.check(config.ready_file)
        except ReadyFileError as error:
            raise ConfigError(str(error)) from None
    if config.cache_dir and config.cache_dir.exists() and not config.cache_dir.is_dir():
        raise ConfigError(f"--cache-dir: {config.cache_dir} is not a folder")
    _check_models(config)


def with_context(source: ModelSource, context_length: int | None) -> ModelSource:
    """The same source, which also refuses a context that its model does not have, when that is known at last."""

    def locate() -> Located:
        located = source.locate()
        if located.facts and (problem := _context_problem([located.facts], context_length)):
            raise ModelSourceError(problem)
        return located

    return dataclasses.replace(source, locate=locate)


def shares(config: Config) -> descriptors.Shares:
    """How many connections each port takes, by the open files that this process may have."""
    return descriptors.share_out(descriptors.limit_now(), len(config.model), _grpc_addresses(config))


def _check_open_files(config: Config) -> None:
    limit, least = descriptors.limit_now(), descriptors.least_limit(len(config.model), _grpc_addresses(config))
    if limit < least:
        raise ConfigError(f"this process may have {limit} open files and needs at least {least}: raise `ulimit -n`")


def _grpc_addresses(config: Config) -> int:
    return 2 if config.grpc_socket else 1


def _check_models(config: Config) -> None:
    known: dict[str, FolderFacts | None] = {}
    for text in config.model or ("",):
        try:
            source = model_source(text, config.cache_dir)
            if source.id in known:
                raise ConfigError(
                    f"--model: there are two models named {source.id}; NAME=SOURCE gives one another name"
                )
            known[source.id] = source.look()
        except StorageError as error:
            raise ConfigError(f"--cache-dir: {error}") from None
        except ModelSourceError as error:
            raise ConfigError(f"--model: {error}") from None
    found = [facts for facts in known.values() if facts]
    if len(found) == len(known) and (problem := _context_problem(found, config.context_length)):
        raise ConfigError(problem)
    _check_memory(found, config.memory_limit_bytes)


def _context_problem(found: Sequence[FolderFacts], context_length: int | None) -> str | None:
    """A limit that is above each model's own context is a mistake; above some, it is one for the others."""
    most = max(facts.context_length for facts in found)
    if context_length is None or any(not facts.context_length for facts in found) or context_length <= most:
        return None
    return f"--context-length: {context_length} is more than the {most} tokens that the model was made for"


def _check_memory(found: Sequence[FolderFacts], limit_bytes: int | None) -> None:
    """Weights take at least what their files have, where they are all loaded."""
    needed_bytes = sum(facts.weights_bytes for facts in found if facts.text_only)
    if limit_bytes is not None and limit_bytes <= needed_bytes:
        raise ConfigError(
            f"--memory-limit-bytes: {limit_bytes} bytes cannot hold the weights, which have {needed_bytes} bytes"
        )
