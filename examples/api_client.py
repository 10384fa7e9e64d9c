"""A client of an API that is spaced, waits when it is told to, and tries again what failed.

The API allows ten requests a second, so `RateLimit` spaces the starts; retries are starts too.
*429 Too Many Requests* says in `Retry-After` how long to wait, which is no failure: `Snooze`. *503
Service Unavailable* is one: `Retry`, each time a little later. *404 Not Found* is one for good:
`GiveUp`. The server is a real one, in a thread; everything takes a bit more than a second.
"""

import asyncio
import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from asyncdefer import GiveUp, Queue, RateLimit, Retry, Snooze, current

queue = Queue()
client = httpx.AsyncClient(timeout=10)
began = time.monotonic()


@queue.task(
    rate_limit=RateLimit(10, per=1),
    retry=Retry(4, delay=0.1, on=httpx.HTTPError),  # no connection, no answer in time, or a 5xx
)
async def fetch(url: str) -> str:
    """Get the name of a part."""
    started = time.monotonic() - began
    response = await client.get(url)
    status, path = response.status_code, response.url.path
    print(f"{started:.2f} s  {path}  attempt {current().attempt}: {status}", flush=True)
    if status == 429:
        raise Snooze(delay=float(response.headers["Retry-After"]))  # with a date: Snooze(eta=…)
    if status == 404:
        raise GiveUp(f"there is no {path}")
    response.raise_for_status()
    return str(response.json()["name"])


NAMES = ["bolt", "nut", "gear", "belt", "cam", "rod"]
MOODS = {"/parts/2": [503, 503], "/parts/4": [429], "/parts/5": [503]}


class Api(BaseHTTPRequestHandler):
    """Knows six parts, and is not always in the mood to say so."""

    def do_GET(self) -> None:
        part = int(self.path.removeprefix("/parts/"))
        moods = MOODS.get(self.path)
        status = moods.pop(0) if moods else 200 if part <= len(NAMES) else 404
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if status == 200:
            self.wfile.write(json.dumps({"name": NAMES[part - 1]}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name there
        pass


async def main() -> None:
    """Ask for six parts at once, and for one that is not there; who asks sees only the outcome."""
    logging.getLogger("asyncdefer").setLevel(logging.ERROR)  # retries are told as warnings
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        async with client, queue:
            url = f"http://127.0.0.1:{server.server_port}/parts"
            handles = [await fetch.enqueue(f"{url}/{part}") for part in range(1, 8)]
            answers = await asyncio.gather(*handles, return_exceptions=True)
        server.shutdown()
    print("\n" + ", ".join(map(str, answers)))


if __name__ == "__main__":
    asyncio.run(main())
