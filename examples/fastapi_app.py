"""A FastAPI application whose jobs start with it and end with it.

`uvicorn examples.fastapi_app:app` serves it. Run as a script, it serves itself on a free port,
sends itself some requests, and ends.
"""

import asyncio
import socket
import time
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException

from asyncdefer import Queue

queue = Queue(drain_timeout=2)  # at shutdown, running jobs get two seconds
app = FastAPI(lifespan=queue.lifespan)


@queue.task(delay=0.3, defer=["document_id"])
async def index_document(document_id: int, text: str) -> int:
    """Index the newest text of a document, 0.3 s after the last save."""
    print(f"indexing {document_id}: {text!r}", flush=True)
    return len(text.split())


@queue.task
def make_report(month: str, seconds: float) -> str:
    """Make a report, in a thread: plain functions block nobody."""
    print(f"report {month} begins", flush=True)
    time.sleep(seconds)
    print(f"report {month} is ready", flush=True)
    return f"report of {month}"


@app.put("/documents/{document_id}")
async def save(document_id: int, text: str) -> dict[str, str]:
    """Save, and index later: the answer does not wait."""
    handle = await index_document.enqueue(document_id, text)
    return {"job": handle.id}


@app.post("/reports/{month}")
def order_report(month: str, seconds: float = 0.1) -> dict[str, str]:
    """Order a report, from a `def` endpoint, which runs in another thread than the queue."""
    handle = queue.enqueue_from_thread(make_report, month, seconds)
    return {"job": handle.id}


@app.get("/jobs/{job_id}")
async def job(job_id: str, wait: float = 0) -> dict[str, Any]:
    """Say how a job stands; its result, if it comes within `wait` seconds."""
    if (handle := await queue.handle(job_id)) is None:
        raise HTTPException(404, "no such job: replaced by a newer call, or over for an hour")
    try:
        return {"result": await handle.result(timeout=wait), "state": handle.state}
    except TimeoutError:
        return {"state": handle.state}


async def visit() -> None:
    """Serve on a free port, save a document three times, order a report, ask for the results."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url) as client:
        saves = [await client.put(f"/documents/7?text={text}") for text in ("a", "a b", "a b c")]
        for answer in (saves[-1], await client.post("/reports/2027-01")):
            print("asked:", (await client.get(f"/jobs/{answer.json()['job']}?wait=5")).json())
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(visit())
