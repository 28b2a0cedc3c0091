"""A server on the loopback interface that speaks OpenAI's protocol, and fails as it is told to."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLEAN = {
    label: {"quote": "", "present": False} for label in ("repetition", "code_switching", "nonsense")
}


def verdict(**present: str) -> dict[str, Any]:
    """A judge's answer: each label with the quote that shows it."""
    return {**CLEAN, **{label: {"quote": q, "present": True} for label, q in present.items()}}


@dataclass
class Server:
    base_url: str = ""
    answer: Callable[[str], Any] = lambda _: CLEAN
    """The answer to the text of the last message: an object, or a text as it is."""
    faults: list[str] = field(default_factory=list)
    """What happens to the next requests: `429`, `500`, `garbage`, `slow`, `drop`, `400:WORD`."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    polls: int = 0
    """How often a batch is still at work when it is asked for."""
    files: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        text = body["messages"][-1]["content"]
        answer = self.answer(text)
        content = answer if isinstance(answer, str) else json.dumps(answer)
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": content},
                }
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }


@contextmanager
def serve(**settings: Any) -> Iterator[Server]:
    """Runs a server."""
    state = Server(**settings)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def send(self, status: int, content: bytes | dict[str, Any], **headers: str) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.endswith("/files"):
                part = re.search(rb"\r\n\r\n(\{.*)\r\n--", body, re.DOTALL)
                assert part is not None
                state.files["in"] = part[1]
                self.send(200, file_of("in", len(body)))
                return
            if self.path.endswith("/batches"):
                state.files["out"] = answered(state)
                self.send(200, batch_of("validating"))
                return
            request = json.loads(body)
            with state.lock:
                state.requests.append(request)
                state.headers.append({k.lower(): v for k, v in self.headers.items()})
                fault = state.faults.pop(0) if state.faults else ""
            if fault in ("429", "500"):
                error = {"error": {"message": "not now", "type": "busy"}}
                self.send(int(fault), error, retry_after_ms="10")
            elif fault.startswith("400"):
                self.send(400, {"error": {"message": f"Unsupported parameter: '{fault[4:]}'"}})
            elif fault == "401":
                self.send(401, {"error": {"message": "Incorrect API key"}})
            elif fault == "garbage":
                self.send(200, b"<html>busy</html>")
            elif fault == "drop":
                self.connection.close()
            else:
                if fault == "slow":
                    time.sleep(1.5)
                self.send(200, state.reply(request))

        def do_GET(self) -> None:
            if "/batches/" in self.path:
                state.polls -= 1
                self.send(200, batch_of("completed" if state.polls < 0 else "in_progress"))
            elif self.path.endswith("/files/out/content"):
                self.send(200, state.files["out"])
            else:
                self.send(404, {"error": {"message": "no such thing"}})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def answered(state: Server) -> bytes:
    """A batch's results, in another order than they were asked for."""
    lines = []
    for line in reversed(state.files["in"].decode().split("\n")):
        if line.strip():
            entry = json.loads(line)
            state.requests.append(entry["body"])
            response = {"status_code": 200, "body": state.reply(entry["body"])}
            lines.append(json.dumps({"custom_id": entry["custom_id"], "response": response}))
    return "\n".join(lines).encode()


def file_of(name: str, size: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "file",
        "bytes": size,
        "created_at": 0,
        "filename": "x",
        "purpose": "batch",
        "status": "processed",
    }


def batch_of(status: str) -> dict[str, Any]:
    return {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "in",
        "completion_window": "24h",
        "status": status,
        "created_at": 0,
        "output_file_id": "out" if status == "completed" else None,
    }
