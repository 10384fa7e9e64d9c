"""The queue in a web program: `queue.lifespan`, `app.state.queue`, and a lifespan of one's own.

No server is needed: `serving` speaks the ASGI lifespan protocol as a server does, and httpx calls the
application in the same loop.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncdefer import NotStarted, Queue, QueueClosed


async def double(n: int) -> int:
    return n * 2


class LifespanFailed(Exception):
    """The application answered startup or shutdown with a failure."""


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Start the application as a server would, in a task of its own, and stop it at the end."""
    to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def say(word: str) -> None:
        await to_app.put({"type": f"lifespan.{word}"})
        answer = await asyncio.wait_for(from_app.get(), 10)
        if answer["type"] != f"lifespan.{word}.complete":
            raise LifespanFailed(answer.get("message"))

    task = asyncio.create_task(app(scope, to_app.get, from_app.put))
    try:
        await say("startup")
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
        await say("shutdown")
    finally:
        await asyncio.gather(task, return_exceptions=True)


async def test_fastapi() -> None:
    """`FastAPI(lifespan=queue.lifespan)`: endpoints enqueue, and await the result."""
    queue = Queue()
    app = FastAPI(lifespan=queue.lifespan)
    task = queue.task(double)

    @app.get("/double/{n}")
    async def endpoint(n: int) -> int:
        return await (await task.enqueue(n))

    async with serving(app) as client:
        assert (await client.get("/double/21")).json() == 42
        assert queue.stats().succeeded == 1


async def test_app_state() -> None:
    """The lifespan sets `app.state.queue`, for endpoints that do not import it."""
    queue = Queue()
    app = FastAPI(lifespan=queue.lifespan)

    @app.get("/double/{n}")
    async def endpoint(n: int, request: Request) -> int:
        return await (await request.app.state.queue.enqueue(double, n))

    async with serving(app) as client:
        assert (await client.get("/double/4")).json() == 8
        assert app.state.queue is queue


async def test_a_plain_endpoint() -> None:
    """A `def` endpoint runs in a thread and uses `enqueue_from_thread`."""
    queue = Queue()
    app = FastAPI(lifespan=queue.lifespan)
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    @app.post("/note/{n}")
    def endpoint(n: int) -> str:
        return queue.enqueue_from_thread(note, n).id

    async with serving(app) as client:
        answers = await asyncio.gather(*(client.post(f"/note/{n}") for n in range(5)))
        await asyncio.wait_for(queue.join(), 10)

    assert sorted(ran) == [0, 1, 2, 3, 4]
    assert len({answer.json() for answer in answers}) == 5


async def test_starlette() -> None:
    """Starlette takes the same lifespan."""
    queue = Queue()

    async def endpoint(request: object) -> JSONResponse:
        return JSONResponse(await (await queue.enqueue(double, 5)))

    app = Starlette(routes=[Route("/", endpoint)], lifespan=queue.lifespan)
    async with serving(app) as client:
        assert (await client.get("/")).json() == 10
        assert app.state.queue is queue


async def test_it_starts_and_closes_with_the_application() -> None:
    """Before the startup the queue is not started; after the shutdown it is closed, runs included."""
    queue = Queue()
    app = FastAPI(lifespan=queue.lifespan)
    started, leave = asyncio.Event(), asyncio.Event()
    log: list[str] = []

    async def job() -> None:
        started.set()
        await leave.wait()
        log.append("job ended")

    @app.post("/")
    async def endpoint() -> None:
        await queue.enqueue(job)

    with pytest.raises(NotStarted):
        await queue.enqueue(double, 1)
    async with serving(app) as client:
        assert (await client.post("/")).status_code == 200
        await asyncio.wait_for(started.wait(), 10)
        asyncio.get_running_loop().call_later(0.02, leave.set)  # while the queue drains
    assert log == ["job ended"]
    assert queue.stats().succeeded == 1
    with pytest.raises(QueueClosed):
        await queue.enqueue(double, 1)


def test_the_application_may_start_again() -> None:
    """The same queue serves a second life of the application, in another event loop."""
    queue = Queue()
    app = FastAPI(lifespan=queue.lifespan)

    @app.get("/double/{n}")
    async def endpoint(n: int) -> int:
        return await (await queue.enqueue(double, n))

    async def life(n: int) -> object:
        async with serving(app) as client:
            return (await client.get(f"/double/{n}")).json()

    assert [asyncio.run(life(n)) for n in range(3)] == [0, 2, 4]


async def test_within_a_lifespan_of_ones_own() -> None:
    """In a lifespan that does more, the queue is `async with queue`."""
    queue = Queue()
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        log.append("up")
        async with queue:
            yield
        log.append("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/double/{n}")
    async def endpoint(n: int) -> int:
        return await (await queue.enqueue(double, n))

    async with serving(app) as client:
        assert (await client.get("/double/3")).json() == 6
    assert log == ["up", "down"]
    with pytest.raises(QueueClosed):
        await queue.enqueue(double, 1)


async def test_queue_lifespan_within_another() -> None:
    """Or it is `async with queue.lifespan(app)`, which sets `app.state.queue` as well."""
    queue = Queue()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with queue.lifespan(app):
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/double/{n}")
    async def endpoint(n: int, request: Request) -> int:
        return await (await request.app.state.queue.enqueue(double, n))

    async with serving(app) as client:
        assert (await client.get("/double/3")).json() == 6


async def test_a_failing_job_does_not_end_the_application() -> None:
    """A job that raises, SystemExit included, leaves the application and its lifespan alone."""
    queue = Queue()
    app = FastAPI(lifespan=queue.lifespan)
    errors: dict[str, type[BaseException]] = {
        "value": ValueError,
        "exit": SystemExit,
        "cancel": asyncio.CancelledError,
    }

    async def broken(error: type[BaseException]) -> None:
        raise error

    @app.post("/{name}")
    async def endpoint(name: str) -> str:
        handle = await queue.enqueue(broken, errors[name])
        try:
            await handle
        except Exception as caught:
            return type(caught).__name__
        return "nothing"

    async with serving(app) as client:
        answers = {name: (await client.post(f"/{name}")).json() for name in errors}
        assert answers == {"value": "ValueError", "exit": "JobFailed", "cancel": "JobFailed"}
        assert queue.stats().failed == 3


async def test_a_client_that_leaves_does_not_end_the_job() -> None:
    """A request that is cancelled while it awaits a handle leaves the job alone."""
    queue = Queue()
    app = FastAPI(lifespan=queue.lifespan)
    started, leave = asyncio.Event(), asyncio.Event()

    async def job() -> None:
        started.set()
        await leave.wait()

    @app.post("/")
    async def endpoint() -> None:
        await (await queue.enqueue(job))

    async with serving(app) as client:
        request = asyncio.create_task(client.post("/"))
        await asyncio.wait_for(started.wait(), 10)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert queue.stats().running == 1
        leave.set()
        await asyncio.wait_for(queue.join(), 10)
        assert queue.stats().succeeded == 1


async def test_two_applications_cannot_share_a_running_queue() -> None:
    """Starting a started queue is an error, which the second application reports at its startup."""
    queue = Queue()
    first, second = FastAPI(lifespan=queue.lifespan), FastAPI(lifespan=queue.lifespan)

    async with serving(first):
        with pytest.raises((LifespanFailed, RuntimeError)):
            async with serving(second):
                pytest.fail("the second application started")
        assert queue.stats().accepted == 0
        assert await (await queue.enqueue(double, 2)) == 4
