"""What the tests of the HTTP sink talk to: a driver of the sink, and a server that misbehaves as it is told."""

import os
import queue
import random
import socket
import ssl
import struct
import subprocess
import threading
import urllib.parse

SUPPRESSED = [s for s in os.environ if s.lower().endswith("_proxy")]


def quote(value):
    return urllib.parse.quote(value, safe="") if not isinstance(value, bytes) else urllib.parse.quote_from_bytes(value, safe="")


class Drive:
    """The program drive.c with a sink in it."""

    def __init__(self, folder, mode, around=()):
        command = [folder + "/drive", folder + "/queue_http.so"]
        environment = {k: v for k, v in os.environ.items() if k not in SUPPRESSED}
        # A sink that heeded them would fail every test.
        environment["http_proxy"] = environment["ALL_PROXY"] = "http://127.0.0.1:1"
        environment["HOME"] = folder
        if mode == "valgrind":
            command = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite,indirect",
                       "--errors-for-leak-kinds=definite,indirect", "--num-callers=30"] + command
        self.slow = 20 if mode == "valgrind" else 1
        self.process = subprocess.Popen([*around, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=environment, bufsize=1)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def say(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def hear(self):
        line = self.lines.get(timeout=120)
        if line is None:
            raise AssertionError("driver ended: " + self.process.stderr.read()[-3000:])
        if line.startswith("error "):
            raise AssertionError(line)
        return line

    def options(self, options):
        for name, value in options.items():
            self.say("option", name, quote(str(value)))

    def check(self):
        self.say("check")
        return self.hear()[6:]

    def open(self, in_flight=10, timeout=5000):
        self.say("open", str(in_flight), str(timeout * self.slow))
        self.log = []
        line = self.hear()
        while line.startswith("log "):
            self.log.append(line)
            line = self.hear()
        return line[5:]

    def message(self, id, headers=(), **parts):
        for name, value in headers:
            self.say("header", quote(name), quote(value))
        self.say("message", quote(id), *(f"{name}={quote(value)}" for name, value in parts.items()))

    def wait(self):
        """All completions until none is outstanding, by id: (outcome, pause, detail)."""
        self.say("wait")
        found = {}
        while True:
            words = self.hear().split(" ", 4)
            if words[0] == "complete":
                if words[1] in found:
                    raise AssertionError("twice: " + words[1])
                found[words[1]] = (words[2], int(words[3]), words[4])
            elif words[0] == "idle":
                self.counts = dict(zip(("DELIVERED", "RETRY", "AMBIGUOUS", "THROTTLED", "PERMANENT", "DISABLE"),
                                       map(int, " ".join(words[1:]).split())))
                return found

    def one(self, id="m1", headers=(), **parts):
        self.message(id, headers, **parts)
        return self.wait()[id]

    def probe(self):
        self.say("probe")
        words = self.hear().split(" ", 3)
        assert words[0] == "probe", words
        return words[1], int(words[2]), words[3]

    def state(self):
        self.say("state")
        return tuple(map(int, self.hear().split()[1:]))

    def end(self):
        """Ends the driver; its memory is judged by then."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        code = self.process.wait(timeout=120)
        errors = self.process.stderr.read()
        if code != 0 or "ERROR:" in errors or "runtime error" in errors:
            raise AssertionError(f"driver ended with {code}: {errors[-4000:]}")


class Request:
    def __init__(self, method, path, headers, body, connection):
        self.method, self.path, self.headers, self.body, self.connection = method, path, headers, body, connection

    def __getitem__(self, name):
        found = [v for n, v in self.headers if n == name]
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None


def answer(status, body=b"", headers=()):
    lines = [f"HTTP/1.1 {status} X"] + [f"{n}: {v}" for n, v in headers]
    if not any(n.lower() in ("content-length", "transfer-encoding") for n, _ in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server:
    """
    Answers with what the function of a request returns: bytes; None closes without an answer, "reset" with a
    reset; a function is called with the socket and may do as it likes.
    """

    def __init__(self, handler=lambda r: answer(200), tls=None, address="127.0.0.1", port=0, greedy=True):
        self.handler, self.tls, self.requests, self.connections = handler, tls, [], 0
        self.arrived = queue.Queue()
        self.lock = threading.Lock()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port))
        self.listener.listen(200)
        self.port = self.listener.getsockname()[1]
        self.greedy = greedy
        self.open = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                self.open.add(sock)
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, raw, number):
        sock = raw
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            stream = sock.makefile("rb")
            while self._answer(sock, stream, number):
                pass
        except (OSError, ValueError, ssl.SSLError):
            pass
        finally:
            with self.lock:
                self.open.discard(raw)
            try:
                sock.close()
            except OSError:
                pass

    def _answer(self, sock, stream, number):
        first = stream.readline()
        if not first:
            return False
        method, path, _ = first.decode("latin-1").split(" ", 2)
        headers = []
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("utf-8").rstrip("\r\n").partition(":")
            headers.append((name.lower(), value.strip()))
        length = int(dict(headers).get("content-length", 0))
        body = stream.read(length) if self.greedy else b""
        request = Request(method, path, headers, body, number)
        with self.lock:
            self.requests.append(request)
        self.arrived.put(request)
        reply = self.handler(request)
        if callable(reply):
            return reply(sock)
        if reply == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if reply is None:
            return False
        sock.sendall(reply)
        return True

    def url(self, path="/", host="127.0.0.1"):
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{path}"

    def close(self):
        """Nobody is answered any more, and what is open is cut."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        with self.lock:
            for sock in self.open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def hold(event):
    """A reply that never comes, until the event."""
    def reply(sock):
        event.wait(60)
        return False
    return reply


def moody(seed):
    """A server that now and then cuts a connection at one point or another."""
    dice = random.Random(seed)
    lock = threading.Lock()

    def handler(request):
        with lock:
            roll = dice.random()
        if roll < 0.03:
            return "reset"
        if roll < 0.06:
            return None
        if roll < 0.09:
            def half(sock):
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-")
                return False
            return half
        if roll < 0.12:
            return answer(503)
        return answer(200, b"ok")
    return handler
