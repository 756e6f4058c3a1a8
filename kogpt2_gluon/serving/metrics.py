"""The counters of the service, in the form that Prometheus reads."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from kogpt2_gluon.serving.worker import Watcher

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class Metrics(Watcher):
    """Counters of one service, with a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second number for each counter, which nobody asks for
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._running = Gauge("kogpt2_running_texts", "Texts that are being written.", registry=registry)
        self._waiting = Gauge("kogpt2_waiting_texts", "Texts that wait for a place.", registry=registry)
        self._jobs = Gauge("kogpt2_waiting_scores", "Requests for likelihoods that are not done.", registry=registry)
        self._read = Counter("kogpt2_tokens_read", "Tokens of prompts, <s> included.", registry=registry)
        self._written = Counter("kogpt2_tokens_written", "New tokens.", registry=registry)
        self._first = Histogram(
            "kogpt2_first_token_seconds",
            "From a text's request to its first token.",
            buckets=SECONDS,
            registry=registry,
        )
        self._seconds = Histogram(
            "kogpt2_request_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._requests = Counter(
            "kogpt2_requests", "Requests that were answered.", ["route", "status"], registry=registry
        )
        self._refused = Counter("kogpt2_refused", "Requests that were refused.", ["reason"], registry=registry)
        self.connections = Gauge("kogpt2_connections", "Open connections.", registry=registry)

    def text(self) -> bytes:
        """Returns all of it."""
        return generate_latest(self._registry)

    def counts(self, running: int, waiting: int, jobs: int) -> None:
        """Takes over what the worker has now."""
        self._running.set(running)
        self._waiting.set(waiting)
        self._jobs.set(jobs)

    def first_token(self, seconds: float, tokens_read: int) -> None:
        """Counts a text's prompt, and the time to its first token."""
        self._first.observe(seconds)
        self._read.inc(tokens_read)

    def token(self) -> None:
        """Counts a new token."""
        self._written.inc()

    def scored(self, tokens: int) -> None:
        """Counts tokens that were read to score them."""
        self._read.inc(tokens)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Counts a request; `route` is one of few, never what a client made up."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """Counts a request that was refused."""
        self._refused.labels(reason).inc()
