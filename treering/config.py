"""The configuration: one flat, frozen record, from defaults, a YAML file, `TREERING_*` variables and flags, in that order.

An unknown key is an error that names the nearest known one, for a misspelt limit that is silently ignored is worse than no limit.
"""

import difflib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from treering.resident import memory_bytes
from tsdb.model.errors import BadData

MAX_CONFIG_BYTES = 1 << 20
MIN_DISK_CACHE_BYTES = 64 << 20

ROLES = ("distributor", "ingester", "querier", "query-frontend", "store-gateway", "compactor", "ruler")

FEATURES = (
    "promql-experimental-functions",
    "promql-duration-expr",
    "promql-extended-range-selectors",
    "promql-binop-fill-modifiers",
    "promql-delayed-name-removal",
    "promql-per-step-stats",
    "type-and-unit-labels",
    "use-start-timestamps",
)
"""Prometheus's names; `all` turns every one on."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator can set. Durations are seconds, sizes bytes."""

    data: str = "./treering-data"
    listen: str = "127.0.0.1:9009"
    bucket: str = ""
    """URL of the bucket (`s3://name/prefix?endpoint=…`, a folder); empty = `<data>/bucket`."""
    target: tuple[str, ...] = ("all",)
    ingesters: int = 1
    replication_factor: int = 1
    multitenancy: bool = False
    enable_feature: tuple[str, ...] = ()
    wal_sync: Literal["commit", "os"] = "commit"
    """`commit`: an answered write survives power loss. `os`: it survives the process only; faster."""
    block_range_s: float = 7200
    block_refresh_s: float = 30
    compact_s: float = 30
    """How often the compactor looks for work; 0 = never."""
    compaction_scan_s: float = 300
    """How often it lists a tenant's blocks anew."""
    compaction_ranges_s: tuple[float, ...] = (7200, 43200, 86400, 604800, 2419200)
    ignore_deleted_s: float = 3600
    """How long readers go on reading a block after others have replaced it: more than three refreshes."""
    deletion_delay_s: float = 43200
    """How long such a block stays in the bucket: longer than readers read it."""
    incomplete_upload_s: float = 86400
    """How old an upload is taken to be abandoned."""
    index_cache_bytes: int = 128 << 20
    page_cache_bytes: int = msgspec.field(default_factory=lambda: min(memory_bytes() // 16, 1 << 30))
    """For opened pages, of which a sample takes about two bytes; half of it, but no more than 128 MiB, for the values of those read
    again, eight bytes each."""
    cache_path: str = ""
    """A folder on a local disk where ranges read from the bucket are kept; empty = none."""
    cache_disk_bytes: int = 10 << 30
    memcached: tuple[str, ...] = ()
    """`host:port` of memcached servers that keep such ranges for all stores; needs `treering[memcached]`."""
    keep_flushed_s: float = 0
    """How long an ingester still answers for blocks it has written; only needed where readers in other processes refresh later."""
    tick_s: float = 5
    self_scrape_s: float = 15
    """How often Treering writes its own metrics into itself; 0 = never."""
    self_tenant: str = "anonymous"
    max_body_bytes: int = 16 << 20
    max_decoded_bytes: int = 32 << 20
    write_threads: int = 1
    """Threads that decode and store writes; each takes all that has queued up and syncs it once. One keeps a core busy with two
    million samples a second; a second one shares less and took 11 % more CPU for the same writes."""
    max_queued_writes: int = 256
    max_concurrent_queries: int = 20
    max_queued_queries: int = 200
    query_timeout_s: float = 120
    query_lookback_s: float = 300
    query_threads: int = 2
    max_query_bytes: int = 64 << 10
    max_samples: int = 50_000_000
    max_series: int = 1_000_000
    max_points: int = 11_000
    max_query_memory_bytes: int = 2 << 30
    """About how much one query may hold at one time."""
    python_functions: tuple[str, ...] = ()
    """`module:function` or `name=module:function`: Python functions that queries may call (see docs/functions.md)."""
    slow_query_s: float = 5
    limits: dict[str, Any] = msgspec.field(default_factory=dict)
    """Limits of every tenant, by the names of `remote.limits.Limits`."""
    tenant_limits: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """The same for single tenants, on top of `limits`."""
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    log_format: Literal["logfmt", "json"] = "logfmt"

    def features(self) -> frozenset[str]:
        """The enabled feature names, `all` spelt out."""
        return frozenset(FEATURES) if "all" in self.enable_feature else frozenset(self.enable_feature)

    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def load_config(path: str | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Config:
    """The effective configuration. BadData names the key, the place it came from and what is allowed there."""
    merged = {**_from_file(path), **_from_environment(environment), **flags}
    try:
        config = msgspec.convert(merged, Config, strict=False)
    except msgspec.ValidationError as error:
        raise BadData(f"configuration: {error}") from None
    _check(config)
    return config


def show_config(config: Config) -> str:
    """The configuration as YAML, every key spelt out."""
    return str(yaml.safe_dump(msgspec.to_builtins(config), sort_keys=False))


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise BadData(f"configuration file {path}: {error.strerror}") from None
    if len(text) > MAX_CONFIG_BYTES:
        raise BadData(f"configuration file {path}: {len(text)} bytes, over the limit of {MAX_CONFIG_BYTES}")
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise BadData(f"configuration file {path}: {error}") from None
    if not isinstance(found, dict):
        raise BadData(f"configuration file {path}: want `key: value` lines, got {type(found).__name__}")
    keys = {str(key).replace("-", "_"): value for key, value in found.items()}
    for key in keys:
        _known(key, f"configuration file {path}")
    return keys


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, text in environment.items():
        if variable.startswith("TREERING_"):
            key = variable.removeprefix("TREERING_").lower()
            _known(key, f"environment variable {variable}")
            found[key] = [part for part in text.split(",") if part] if key in _LISTS else text
    return found


_LISTS = ("target", "enable_feature", "python_functions", "memcached")


def _known(key: str, place: str) -> None:
    known = Config.__struct_fields__
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        raise BadData(f"{place}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _check(config: Config) -> None:
    for role in config.target:
        if role not in ("all", *ROLES):
            raise BadData(f"target: unknown role {role!r}; want `all` or one of {', '.join(ROLES)}")
    for feature in config.enable_feature:
        if feature not in ("all", *FEATURES):
            near = difflib.get_close_matches(feature, FEATURES, n=1)
            raise BadData(f"enable_feature: unknown feature {feature!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    _, _, port = config.listen.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise BadData(f"listen: {config.listen!r} is no HOST:PORT")
    if not 1 <= config.replication_factor <= config.ingesters:
        raise BadData(f"replication_factor: {config.replication_factor} needs as many ingesters; there are {config.ingesters}")
    _check_caches(config)
    for name in Config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, int | float) and value < 0:
            raise BadData(f"{name}: {value} is negative")


def _check_caches(config: Config) -> None:
    if config.cache_path and Path(config.cache_path).exists() and not Path(config.cache_path).is_dir():
        raise BadData(f"cache_path: {config.cache_path} is no folder")
    if config.cache_path and config.cache_disk_bytes < MIN_DISK_CACHE_BYTES:
        raise BadData(f"cache_disk_bytes: {config.cache_disk_bytes} is below {MIN_DISK_CACHE_BYTES}, which a few pages take")
    for server in config.memcached:
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise BadData(f"memcached: {server!r} is no HOST:PORT")
    if config.memcached and importlib.util.find_spec("pymemcache") is None:
        raise BadData("memcached: needs the client library: pip install 'treering[memcached]'")
