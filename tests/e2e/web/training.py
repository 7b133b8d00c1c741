"""The fake gateway's training API: jobs that tests put there and move on by hand."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Header
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

if TYPE_CHECKING:
    from tests.e2e.web.fake_gateway import FakeGateway

STAGES = ("tokenizer", "pretrain", "sft", "evaluate")
EVENTS_POLL_S = 0.02

_numbers = itertools.count(1)


def served(checkpoint: str) -> dict[str, Any]:
    added = {"checkpoint": checkpoint, "context_length": 512, "vocab_size": 512, "num_parameters": 3_300_000}
    return {
        "id": "nanochat",
        "object": "model",
        "created": time.time() - 300,
        "owned_by": "nanochat",
        "nanochat": added,
    }


def checkpoint(run: str, stage: str, step: int, **metrics: float) -> dict[str, Any]:
    return {
        "id": f"{run}/{stage}/step_{step:06d}",
        "object": "checkpoint",
        "run": run,
        "stage": stage,
        "step": step,
        "created_at": time.time() - 1000 + step,
        "size_bytes": 13_400_000,
        "config": {"n_layer": 4},
        "metrics": metrics,
    }


def job(kind: str, name: str, status: str = "queued", parent_id: str | None = None) -> dict[str, Any]:
    now = time.time()
    has_begun = status != "queued"
    return {
        "id": f"job{next(_numbers):04d}",
        "object": "job",
        "kind": kind,
        "name": name,
        "status": status,
        "created_at": now - 200,
        "started_at": now - 180 if has_begun else None,
        "finished_at": now - 20 if status in ("succeeded", "failed", "cancelled") else None,
        "attempt": 1 if has_begun else 0,
        "max_attempts": 3,
        "num_processes": 1,
        "priority": 0,
        "deadline_s": None,
        "progress": {"step": 0, "num_steps": 0, "ratio": 0.0, "tokens": 0, "tokens_per_second": 0.0, "eta_s": None},
        "metrics": {},
        "checkpoint": None,
        "output": None,
        "error": None,
        "parent_id": parent_id,
        "stages": [],
        "config": {},
        "events": [],
    }


def pipeline(gateway: "FakeGateway", status: str = "queued") -> dict[str, Any]:
    """Put a demo pipeline with its four stages there."""
    parent = job("pipeline", "demo", status)
    parent["config"] = {"profile": "demo"}
    stages = [job(kind, f"demo-{kind}", parent_id=parent["id"]) for kind in STAGES]
    parent["stages"] = [stage["id"] for stage in stages]
    for each in (parent, *stages):
        gateway.jobs[each["id"]] = each
    return parent


def begin(each: dict[str, Any]) -> None:
    each.update(status="running", attempt=1, started_at=time.time())
    tell(each, "status", status="running", attempt=1, error=None)


def train(each: dict[str, Any], first: int, last: int, num_steps: int) -> None:
    """Let a running job take these steps."""
    for step in range(first, last + 1):
        values = {"train_loss": 6.2 * math.exp(-step / 60) + 1.3 + 0.12 * math.sin(step * 12.9898)}
        if step % 20 == 0:
            values["val_bpb"] = 2.1 * math.exp(-step / 80) + 0.9
        each["metrics"].update(values)
        tell(each, "metric", step=step, values=values)
    each["progress"] = {
        "step": last,
        "num_steps": num_steps,
        "ratio": last / num_steps,
        "tokens": last * 4096,
        "tokens_per_second": 18_250.0,
        "eta_s": (num_steps - last) * 0.23,
    }
    tell(each, "progress", **each["progress"])
    tell(each, "log", lines=[f"step {last}/{num_steps} loss {each['metrics']['train_loss']:.3f}"])


def finish(each: dict[str, Any], status: str = "succeeded") -> None:
    each.update(status=status, finished_at=time.time())
    if status == "succeeded":
        each["progress"]["ratio"] = 1.0
    tell(each, "status", status=status, attempt=1, error=each["error"])


def tell(each: dict[str, Any], event: str, **data: Any) -> None:
    each["events"].append((event, {"time": time.time(), **data}))


def install(app: FastAPI, gateway: "FakeGateway") -> None:
    @app.get("/v1/jobs")
    def jobs(kind: str | None = None, limit: int = 50) -> dict[str, Any]:
        found = [shown(each) for each in gateway.jobs.values() if kind in (None, each["kind"])]
        return {"object": "list", "data": found[::-1][:limit], "has_more": len(found) > limit, "last_id": None}

    @app.get("/v1/reports/{run}")
    def report(run: str) -> Any:
        if run not in {each["name"] for each in gateway.jobs.values()}:
            return refusal(404, "not_found", f"no run is called {run!r}; there is demo.")
        return HTMLResponse(f"<h1>Run {run}</h1>")

    @app.post("/v1/jobs", status_code=202)
    def submit(spec: dict[str, Any]) -> Any:
        gateway.submitted.append(spec)
        if spec["kind"] == "pipeline" and spec["config"].get("profile") != "demo":
            return refusal(422, "invalid_config", "config.profile is 'grand'; there is cpu, demo.")
        if spec["kind"] == "pipeline":
            return shown(pipeline(gateway))
        made = job(spec["kind"], spec.get("name", spec["kind"]))
        gateway.jobs[made["id"]] = made
        return shown(made)

    @app.get("/v1/jobs/{job_id}")
    def one(job_id: str) -> Any:
        return shown(gateway.jobs[job_id])

    @app.post("/v1/jobs/{job_id}/{action}")
    def act(job_id: str, action: str) -> Any:
        each = gateway.jobs[job_id]
        if action == "cancel":
            finish(each, "cancelled")
        else:
            each.update(status="queued", finished_at=None, error=None)
        return shown(each)

    @app.get("/v1/jobs/{job_id}/metrics")
    def metrics(job_id: str) -> dict[str, Any]:
        series: dict[str, list[dict[str, float]]] = {}
        for event, data in gateway.jobs[job_id]["events"]:
            for name, value in data.get("values", {}).items() if event == "metric" else ():
                series.setdefault(name, []).append({"step": data["step"], "time": data["time"], "value": value})
        return {"object": "job.metrics", "job_id": job_id, "series": series}

    @app.get("/v1/jobs/{job_id}/events")
    def events(job_id: str, last_event_id: str | None = Header(default=None)) -> StreamingResponse:
        first = int((last_event_id or "0").split(".")[0])
        return StreamingResponse(told(gateway.jobs[job_id], first), media_type="text/event-stream")

    @app.get("/v1/checkpoints")
    def checkpoints() -> dict[str, Any]:
        return {"object": "list", "data": gateway.checkpoints}

    @app.post("/v1/models/{name}/promote")
    def promote(name: str, body: dict[str, str]) -> Any:
        if body["checkpoint"].startswith("broken"):
            return refusal(409, "checkpoint_corrupt", "model.safetensors has another SHA-256 than its manifest says.")
        gateway.promoted.append(body["checkpoint"])
        gateway.models = [served(body["checkpoint"])]
        return {"id": name, "checkpoint": body["checkpoint"]}

    @app.post("/v1/models/{name}/rollback")
    def rollback(name: str) -> Any:
        if len(gateway.promoted) < 2:
            return refusal(409, "conflict", f"{name} has no earlier checkpoint to go back to.")
        gateway.promoted.pop()
        gateway.models = [served(gateway.promoted[-1])]
        return {"id": name, "checkpoint": gateway.promoted[-1]}


async def told(each: dict[str, Any], first: int) -> AsyncIterator[str]:
    number = first
    while True:
        is_over = each["finished_at"] is not None
        for event, data in each["events"][number:]:
            number += 1
            yield f"id: {number}.0\r\nevent: {event}\r\ndata: {json.dumps(data)}\r\n\r\n"
        if is_over:
            return
        await asyncio.sleep(EVENTS_POLL_S)


def shown(each: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in each.items() if key != "events"}


def refusal(status: int, code: str, message: str) -> JSONResponse:
    detail = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": detail}, status_code=status)
