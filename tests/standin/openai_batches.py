"""The batch interface of the stand-in for an OpenAI-compatible server: files, batches and what may go wrong.

No network and no clock of its own. Requests are dealt with when their batch is first looked at after its time
has come, by the same rules as single ones but for the limits; the lines of results come in no order.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.standin.openai_rules import Rules, digest, share

LOST = "lost"
"""The request was dealt with, and its answer is not sent."""
CUT = "cut"
"""Half of the answer is sent, and then the connection closed."""


@dataclass
class Batch:
    """One batch; `seen` counts how often it was asked for."""

    id: str
    file: str
    created: float
    metadata: dict[str, str]
    status: str = "validating"
    errors: list[dict[str, Any]] = field(default_factory=list)
    output: str | None = None
    error_file: str | None = None
    counts: dict[str, int] = field(default_factory=lambda: {"total": 0, "completed": 0, "failed": 0})
    seen: int = 0

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": self.file,
            "completion_window": "24h",
            "created_at": int(self.created),
            "status": self.status,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "output_file_id": self.output,
            "error_file_id": self.error_file,
            "request_counts": dict(self.counts),
            "metadata": self.metadata,
        }


class Batches:
    """Decides on requests to /files and /batches, and counts them."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.settings = rules, rules.settings
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, Batch] = {}
        self.uploads: Counter[str] = Counter()
        """How often each content was uploaded."""
        self.asked: Counter[str] = Counter()
        """How often each request, by its custom_id, was in a batch that was not refused as a whole."""
        self._done: Counter[str] = Counter()

    def stats(self) -> dict[str, Any]:
        return {
            "files": len(self.uploads),
            "files_sent_twice": sum(count > 1 for count in self.uploads.values()),
            "batches": len(self.batches),
            "polls": sum(each.seen for each in self.batches.values()),
            "downloads": self._done["batch_cut_files"],
            "asked_twice": sum(count > 1 for count in self.asked.values()),
            "by_round_and_role": Counter(
                f"{each.metadata.get('round')} {each.metadata.get('role')}" for each in self.batches.values()
            ),
            "statuses": Counter(each.status for each in self.batches.values()),
        }

    def upload(self, name: str, content: bytes) -> tuple[int, dict[str, Any], str]:
        """Status, answer and mishap."""
        if self.settings.batch_file_bytes and len(content) > self.settings.batch_file_bytes:
            return 413, _error("The file is too large."), ""
        self.uploads[digest(content.decode())] += 1
        number = self._keep(name, content)
        return 200, self._file(number), self._first("batch_lost_uploads", LOST)

    def create(self, body: dict[str, Any], now: float) -> tuple[int, dict[str, Any], str]:
        if body.get("input_file_id") not in self.files or body.get("completion_window") != "24h":
            return 400, _error("There is no such file."), ""
        number = f"batch_{len(self.batches) + 1}"
        batch = Batch(number, body["input_file_id"], now, body.get("metadata") or {})
        self.batches[number] = batch
        self._validate(batch)
        return 200, batch.shown(), self._first("batch_lost_creates", LOST)

    def list_files(self, after: str | None, limit: int) -> dict[str, Any]:
        return self._page([self._file(number) for number in reversed(self.files)], after, limit)

    def list_batches(self, after: str | None, limit: int) -> dict[str, Any]:
        return self._page([batch.shown() for batch in reversed(self.batches.values())], after, limit)

    def state(self, number: str, now: float) -> tuple[int, dict[str, Any], str]:
        batch = self.batches.get(number)
        if batch is None:
            return 404, _error("No such batch."), ""
        batch.seen += 1
        if share(self.settings.seed, "poll", number, batch.seen) < self.settings.batch_poll_errors:
            return 503, _error("Overloaded."), ""
        if batch.status == "validating":
            batch.status = "in_progress"
        elif batch.status == "cancelling":
            self._finish(batch, "cancelled", 0.5)
        elif batch.status == "in_progress" and now - batch.created >= self.settings.batch_seconds:
            expires = self._first("batch_expired", "expired")
            self._finish(batch, expires or "completed", 0.5 if expires else 1.0)
        return 200, batch.shown(), ""

    def cancel(self, number: str) -> tuple[int, dict[str, Any], str]:
        batch = self.batches[number]
        if batch.status in ("validating", "in_progress"):
            batch.status = "cancelling"
        return 200, batch.shown(), ""

    def content(self, number: str) -> tuple[int, bytes, str]:
        """Some of the first ones are cut, or hold fewer lines than they should."""
        if number not in self.files:
            return 404, b"{}", ""
        content = self.files[number][1]
        if self._first("batch_short_files", "short"):
            return 200, content[: len(content) // 2], ""
        return 200, content, self._first("batch_cut_files", CUT)

    def _validate(self, batch: Batch) -> None:
        lines = self.files[batch.file][1].splitlines()
        if self._first("batch_failed", "failed"):
            batch.errors = [{"code": "invalid_json_line", "message": "Line 1 is no JSON.", "line": None}]
        waiting = sum(
            each.counts["total"]
            for each in self.batches.values()
            if each.status in ("validating", "in_progress")
        )
        most = self.settings.batch_queue
        if most and waiting + len(lines) > most:
            words = (
                f"Enqueued token limit reached for m. Limit: {most} enqueued tokens. Please try again once"
            )
            batch.errors = [{"code": "token_limit_exceeded", "message": f"{words} some have completed."}]
        if batch.errors:
            batch.status = "failed"
            return
        batch.counts["total"] = len(lines)
        for line in lines:
            self.asked[json.loads(line)["custom_id"]] += 1

    def _finish(self, batch: Batch, status: str, part: float) -> None:
        lines = [json.loads(line) for line in self.files[batch.file][1].splitlines()]
        lines.sort(key=lambda line: share("order", batch.id, line["custom_id"]))
        dealt = max(1, int(len(lines) * part))
        good, bad = list[dict[str, Any]](), list[dict[str, Any]]()
        for line in lines[:dealt]:
            found = self._line(line)
            (good if found["response"]["status_code"] == 200 else bad).append(found)
        for line in lines[dealt:]:
            why = "This request could not be executed before the completion window expired."
            error = {"code": f"batch_{status}", "message": why}
            bad.append({"id": "r", "custom_id": line["custom_id"], "response": None, "error": error})
        batch.status = status
        batch.counts |= {"completed": len(good), "failed": len(bad)}
        batch.output = self._results(good) if good else None
        batch.error_file = self._results(bad) if bad else None

    def _line(self, line: dict[str, Any]) -> dict[str, Any]:
        response = self.rules.batched(line["body"])
        status, body = response.status, response.body
        if response.mishap in ("hang", "drop", "cut", "malformed", "html"):
            status, body = 500, _error("The server had an error.")
        found = {"status_code": status, "request_id": "req", "body": body}
        return {
            "id": f"r-{line['custom_id']}",
            "custom_id": line["custom_id"],
            "response": found,
            "error": None,
        }

    def _results(self, lines: list[dict[str, Any]]) -> str:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        return self._keep("results.jsonl", text.encode())

    def _keep(self, name: str, content: bytes) -> str:
        number = f"file-{len(self.files) + 1}"
        self.files[number] = (name, content)
        return number

    def _file(self, number: str) -> dict[str, Any]:
        name, content = self.files[number]
        return {"id": number, "object": "file", "bytes": len(content), "filename": name, "purpose": "batch"}

    def _page(self, every: list[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
        start = next((at + 1 for at, each in enumerate(every) if each["id"] == after), 0)
        end = start + min(limit, self.settings.batch_page)
        return {"object": "list", "data": every[start:end], "has_more": end < len(every)}

    def _first(self, name: str, mishap: str) -> str:
        """The mishap, the first few times."""
        self._done[name] += 1
        return mishap if self._done[name] <= getattr(self.settings, name) else ""


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": None}}
