"""Stands before the processes of a region as a Kubernetes Service does: it hands out connections, and knows nothing of requests.

A connection goes to one of the processes that are in, and stays there. One that is not ready, or is about to be ended, gets no
new ones; what it has, it keeps. Nobody is tried a second time: a connection that is refused is the client's to notice.
"""

import asyncio
import itertools
import threading
import urllib.request

LOOK_S = 0.5


class Backend:
    """One process of a region."""

    def __init__(self, name, public, ops):
        self.name, self.ops = name, ops
        self.host, port = public.removeprefix("http://").split(":")
        self.port = int(port)
        self.ready, self.ending = True, False

    def look(self):
        try:
            with urllib.request.urlopen(f"{self.ops}/api/health/readiness", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def is_in(self):
        return self.ready and not self.ending


class Balancer:
    """A listener for each region, in a thread of their own, within `with`."""

    def __init__(self, regions):
        self.regions, self.urls = regions, {}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.do(self.listen())
        return self

    def __exit__(self, *_):
        self.do(self.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def listen(self):
        for name, backends in self.regions.items():
            server = await asyncio.start_server(carrier(backends), "127.0.0.1", 0)
            self.urls[name] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        backends = [backend for backends in self.regions.values() for backend in backends]
        self.watchers = [asyncio.ensure_future(watch(backend)) for backend in backends]

    async def close(self):
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def watch(backend):
    while True:
        backend.ready = await asyncio.to_thread(backend.look)
        await asyncio.sleep(LOOK_S)


def carrier(backends):
    """What is done with a connection."""
    turns = itertools.count()

    async def carry(reader, writer):
        try:
            into = [backend for backend in backends if backend.is_in()]
            # Nobody in: as a Service without endpoints, which refuses.
            if into:
                backend = into[next(turns) % len(into)]
                answers, asks = await asyncio.open_connection(backend.host, backend.port)
                await asyncio.gather(pump(reader, asks), pump(answers, writer))
        except (OSError, asyncio.CancelledError):
            pass  # Either end is gone, or the balancer is: so is the connection.
        finally:
            writer.close()

    return carry


async def pump(source, sink):
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()
