"""
wire.py
	A TCP proxy in a process of its own, that can be cut: what is between a relay
	and its destination.

	open				all passes
	refuse				no connection is to be had, those there are reset
	reset				those there are reset, new ones pass
	hole both|answers	nothing passes (or no answer), until "open"; what came in
						between passes then, late
	drop				as hole, but ends with all connections reset
	snip N				each connection is reset when N more bytes of answers have passed; 0:
						before the next answer
	slow				few bytes at a time
"""

import asyncio
import multiprocessing
import os
import signal
import socket
import struct

CHUNK = 65536


def reset(writer):
    raw = writer.get_extra_info("socket")
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    writer.transport.abort()


class Link:
    """One connection, and the one behind it."""

    def __init__(self, proxy, near, far):
        self.proxy = proxy
        self.ends = (near, far)
        self.left = None            # bytes of answers until it is cut

    def cut(self):
        for _, writer in self.ends:
            reset(writer)

    async def pump(self, source, sink, answers):
        while True:
            await self.proxy.gate(answers)
            data = await source.read(16 if self.proxy.mode == "slow" else CHUNK)
            # What was read while the gate was open may find it closed.
            await self.proxy.gate(answers)
            if not data:
                if sink.can_write_eof():
                    sink.write_eof()
                return
            if answers and self.left is not None:
                data = data[:self.left]
                self.left -= len(data)
            sink.write(data)
            await sink.drain()
            if answers and self.left == 0:
                self.cut()
                return
            if self.proxy.mode == "slow":
                await asyncio.sleep(0.005)

    async def run(self):
        (near_reader, near_writer), (far_reader, far_writer) = self.ends
        try:
            await asyncio.gather(self.pump(near_reader, far_writer, False), self.pump(far_reader, near_writer, True))
        except (OSError, asyncio.IncompleteReadError):
            self.cut()
        finally:
            for writer in (near_writer, far_writer):
                writer.close()


class Proxy:
    def __init__(self, port, upstream, pipe):
        self.port = port
        self.upstream = upstream
        self.pipe = pipe
        self.mode = "open"
        self.blocked = set()        # of True (answers) and False
        self.changed = asyncio.Event()
        self.links = set()
        self.server = None

    async def gate(self, answers):
        while answers in self.blocked:
            await self.changed.wait()

    async def meet(self, reader, writer):
        try:
            far = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            reset(writer)
            return
        link = Link(self, (reader, writer), far)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)

    async def listen(self):
        self.server = await asyncio.start_server(self.meet, "127.0.0.1", self.port, reuse_address=True)

    def cut_all(self):
        for link in list(self.links):
            link.cut()

    async def obey(self, words):
        order = words[0]
        if order == "open":
            if self.mode == "drop":
                self.cut_all()
            self.blocked = set()
        elif order in ("hole", "drop"):
            self.blocked = {True} if words[1] == "answers" else {True, False}
        elif order == "refuse":
            self.server.close()
            self.server = None
            self.cut_all()
        elif order == "reset":
            self.cut_all()
        elif order == "snip":
            for link in self.links:
                link.left = int(words[1])
        if order in ("open", "hole", "drop", "refuse", "slow"):
            self.mode = order
        if order != "refuse" and self.server is None:
            await self.listen()
        self.changed.set()
        self.changed = asyncio.Event()

    async def run(self):
        await self.listen()
        self.pipe.send("ready")
        loop = asyncio.get_running_loop()
        orders = asyncio.Queue()
        loop.add_reader(self.pipe.fileno(), lambda: orders.put_nowait(self.receive()))
        while True:
            words = await orders.get()
            if words is None:
                return
            await self.obey(words)
            self.pipe.send("done")

    def receive(self):
        try:
            return self.pipe.recv()
        except EOFError:
            return None


def work(port, upstream, pipe, others):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    others.close()

    async def begin():
        loop = asyncio.get_running_loop()
        # Connections that are cut are no news.
        loop.set_exception_handler(lambda *_: None)
        await Proxy(port, upstream, pipe).run()
    asyncio.run(begin())
    os._exit(0)


class Wire:
    """The proxy as others see it."""

    def __init__(self, upstream):
        self.port = free_port()
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=work, args=(self.port, upstream, theirs, self.pipe), daemon=True)
        self.process.start()
        theirs.close()
        self.wait()

    def wait(self):
        if not self.pipe.poll(20):
            raise RuntimeError("the proxy does not answer")
        return self.pipe.recv()

    def order(self, *words):
        self.pipe.send(words)
        self.wait()

    def close(self):
        self.process.kill()
        self.process.join()


def free_port():
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
