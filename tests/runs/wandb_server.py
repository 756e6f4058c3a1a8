"""Plays the server of Weights & Biases: it takes the figures of runs, and can fall silent."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "0" * 40


class FakeWandB:
    """A server of W&B that keeps what it gets.

    Attributes
    ----------
    asked : threading.Event
        Set by the first request.
    silent : threading.Event
        Once it is set, requests are taken and never answered.
    history : list of dict
        The rows of figures, in the order in which they came.
    files : list of dict
        The bodies of all streams of files, whole.
    runs : list of dict
        The variables of each request that makes a run or changes it.
    """

    def __init__(self) -> None:
        self.asked, self.silent, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.history: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.url = ""

    def variables(self, home: Path) -> dict[str, str]:
        """The environment of a process that logs to this server."""
        return {**os.environ, "WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "HOME": str(home)}

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/file_stream"):
            self.files.append(body)
            for name, chunk in body.get("files", {}).items():
                if name == "wandb-history.jsonl":
                    self.history += [json.loads(line) for line in chunk["content"]]
            return {"exitcode": None, "limits": {}}
        query, given = body.get("query", ""), body.get("variables", {})
        if "upsertBucket" in query:
            self.runs.append(given)
            project = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "me"}}
            name = given.get("name")
            bucket = {"id": name, "name": name, "displayName": name, "config": "{}", "project": project}
            return {"data": {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}}
        if "RunResumeStatus" in query:
            known = [run for run in self.runs if run.get("name") == given.get("name")]
            rows = [json.dumps(row) for row in self.history]
            bucket = {
                "name": given.get("name"),
                "summaryMetrics": rows[-1] if rows else "{}",
                "displayName": given.get("name"),
                "logLineCount": 0,
                "historyLineCount": len(rows),
                "eventsLineCount": 0,
                "historyTail": json.dumps(rows[-1:]),
                "eventsTail": "[]",
                "config": "{}",
                "tags": [],
                "notes": "",
                "wandbConfig": '{"t": 1}',
            }
            entity = {"name": "me"}
            return {"data": {"model": {"name": "demo", "entity": entity, "bucket": bucket if known else None}}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in given["files"]]
            return {"data": {"createRunFiles": {"runID": given.get("run"), "uploadHeaders": [], "files": files}}}
        if "serverInfo" in query:
            return {"data": {"serverInfo": {"features": [], "cliVersionInfo": {}}}}
        if "viewer" in query:
            return {"data": {"viewer": {"entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}}
        return {"data": {}}


@contextmanager
def fake_wandb() -> Iterator[FakeWandB]:
    """Yields a server on this machine."""
    fake = FakeWandB()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.asked.set()
            if fake.silent.is_set():
                fake.ended.wait()
                return
            try:
                body = json.loads(raw)
            except ValueError:
                body = {}
            answer = json.dumps(fake.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        fake.ended.set()
        server.shutdown()
        server.server_close()
