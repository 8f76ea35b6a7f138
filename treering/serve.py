"""`treering serve`: the process around a node: socket, event loop, background thread, signals, and what is printed."""

import gc
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

import uvicorn

from treering.config import Config
from treering.http.api import make_app
from treering.http.connection import BoundedConnection
from treering.look_ahead import look_ahead
from treering.node import Node
from treering.resident import keep_freed_memory, refuse_huge_pages, release_unused
from treering.self_scrape import SelfScrape
from treering.telemetry import start_logging
from treering.version import VERSION
from treering.warm import load_rarer_kernels, warm_kernels
from tsdb.model.errors import TreeringError, Unavailable

log = logging.getLogger("treering.serve")

GC_THRESHOLD = 20_000
"""New objects before the collector looks; requests leave no cycles, so the default of 700 finds nothing, often."""

FIRST_ROUND_S = 0.05
"""When background work first runs: at once, so that a new store has its own metrics to show."""

RELEASE_S = 20
"""How often memory that is not needed goes back to the system while nobody asks: the next query would fault it in anew, which on a
virtual machine, whose host has to find it too, takes twice as long as the query."""

BUSY_RELEASE_S = 300
"""The same while queries come all the time: what one large query took is not kept for ever."""

GRACE_S = 10
"""How long requests under way may go on after Ctrl-C."""


def serve(config: Config, say: Callable[[str], None] = print) -> None:
    """Run the node until SIGINT or SIGTERM. Unavailable where the port is taken."""
    began = time.monotonic()
    keep_freed_memory(server=True)
    refuse_huge_pages()
    start_logging(level=config.log_level, as_json=config.log_format == "json")
    listener = _listen(config)
    try:
        helpers = _compile_once(say)
        node = Node(config)
    except BaseException:
        listener.close()
        raise
    with listener:
        try:
            if not helpers:  # they compile them now, and leave the compiler's memory behind
                threading.Thread(target=load_rarer_kernels, name="warm", daemon=True).start()
            _run(node, listener, say, began)
        finally:
            for helper in helpers:
                helper.terminate()
                helper.wait()
            _close(node, say)


def _run(node: Node, listener: socket.socket, say: Callable[[str], None], began: float) -> None:
    app = make_app(node)
    release_unused()
    gc.freeze()  # what lives now lives until the end; collections need not look at it again
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    settings = uvicorn.Config(
        app,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=BoundedConnection,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=1024,
    )
    server = _Server(settings)
    stop = threading.Event()
    threads = [
        _once(partial(look_ahead, node, stop.is_set), "look-ahead"),
        _repeat(partial(_tick, node), "tick", every_s=node.config.tick_s, stop=stop),
        _repeat(releasing(node), "release", every_s=RELEASE_S, stop=stop),
        _repeat(SelfScrape(node).run, "self-scrape", every_s=node.config.self_scrape_s, stop=stop),
        _repeat(partial(node.compact, stop.is_set), "compact", every_s=node.config.compact_s, stop=stop),
    ]
    say(banner(node.config, seconds=time.monotonic() - began))
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _tick(node: Node) -> None:
    """A round of background work. What samples took until they were cut into blocks goes back to the system at once."""
    if node.tick():
        release_unused()


def releasing(node: Node, release: Callable[[], None] = release_unused) -> Callable[[], None]:
    """What releases memory if no query came since it was last called, or if it has not done so for BUSY_RELEASE_S."""
    looked_ms = released_ms = node.now_ms()

    def look() -> None:
        nonlocal looked_ms, released_ms
        now_ms = node.now_ms()
        quiet, looked_ms = node.queried_ms < looked_ms, now_ms
        if quiet or now_ms - released_ms >= BUSY_RELEASE_S * 1000:
            released_ms = now_ms
            release()

    return look


class _Server(uvicorn.Server):
    """uvicorn that stops at the first signal and does not raise it again: we flush afterwards."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def _repeat(work: Callable[[], None], name: str, *, every_s: float, stop: threading.Event) -> threading.Thread:
    """Background work in a thread of its own, soon and then every so often (0 = never) until `stop`. No failure ends it."""

    def run() -> None:
        wait_s = FIRST_ROUND_S
        while every_s and not stop.wait(wait_s):
            wait_s = every_s
            _attempt(work, name)

    return _started(run, name)


def _once(work: Callable[[], None], name: str) -> threading.Thread:
    """Background work in a thread of its own, now."""
    return _started(partial(_attempt, work, name), name)


def _started(run: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _attempt(work: Callable[[], None], name: str) -> None:
    try:
        work()
    except TreeringError as error:
        log.error("background work failed", extra={"fields": {"work": name, "error": error}})
    except Exception:
        log.exception("background work has a defect", extra={"fields": {"work": name}})


def _listen(config: Config) -> socket.socket:
    host, port = config.address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {config.listen}: {error.strerror}; choose another address with --listen HOST:PORT"
        ) from None
    listener.setblocking(False)
    return listener


def _compile_once(say: Callable[[str], None]) -> "list[subprocess.Popen[bytes]]":
    notice = threading.Timer(1.5, say, ["Compiling kernels for this machine, once: some ten seconds ..."])
    notice.start()
    try:
        return warm_kernels()
    finally:
        notice.cancel()


def _close(node: Node, say: Callable[[str], None]) -> None:
    say("Stopping: writing what is in memory into blocks ...")
    series = node.active_series()
    began = time.monotonic()
    failed = node.close()
    took = f"in {time.monotonic() - began:.1f} s. All acknowledged samples are on disk."
    if failed:
        tenant, text = min(failed.items())
        say(f"Stopped {took} Not all could be flushed (tenant {tenant}: {text}): the log keeps it for the next start.")
    else:
        say(f"Stopped: {series} series flushed {took}")


def banner(config: Config, *, seconds: float) -> str:
    """What a start prints: addresses and snippets to copy."""
    url = f"http://{config.listen}"
    tenants = (
        "multi-tenant: every request needs X-Scope-OrgID" if config.multitenancy else "single tenant (anonymous), no header needed"
    )
    return f"""\
Treering {VERSION} is ready after {seconds:.1f} s.

  Address      {url}      API {url}/api/v1/query?query=up
  Data         {config.data}      Blocks {config.bucket or config.data + "/bucket"}
  Tenants      {tenants}

  Prometheus   remote_write:
                 - url: {url}/api/v1/write

  Grafana      datasources: [{{name: Treering, type: prometheus, access: proxy, url: "{url}"}}]

  Python       import treering; treering.open("{url}").query("up").to_pandas()

Ctrl-C stops it and flushes memory to blocks.
"""
