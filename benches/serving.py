"""What the benches share that ask a server of their own: starting it, asking it, and an open loop of requests.

Only the standard library is used.
"""

import gzip
import http.client
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tests/data/nl2bash"
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
ANCED = os.environ.get("ANCED", str(TARGET / "release/anced"))
START_SECONDS = 300
# A connection that was idle for longer is not used again: the server might be about to close it.
IDLE_SECONDS = 5


class Client(threading.local):
    """A connection a thread, kept open."""

    connection = None
    used = 0.0

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


LOCAL = Client()


def ask(port, method, path, body=None, kind="application/json", timeout=60):
    """Status and bytes of an answer; a broken connection is an exception."""
    if time.monotonic() - LOCAL.used > IDLE_SECONDS:
        LOCAL.close()
    if LOCAL.connection is None:
        LOCAL.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        LOCAL.connection.connect()
        LOCAL.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        LOCAL.connection.request(method, path, body=body, headers={"Content-Type": kind})
        answer = LOCAL.connection.getresponse()
        read = answer.read()
        LOCAL.used = time.monotonic()
        return answer.status, read
    except BaseException:
        LOCAL.close()
        raise


def call(port, method, path, body=None, timeout=60):
    """Status and JSON of an answer to JSON."""
    status, read = ask(port, method, path, None if body is None else json.dumps(body).encode(), timeout=timeout)
    return status, json.loads(read or b"null")


class Arrivals:
    """Arrival times of a Poisson process, handed out one by one."""

    def __init__(self, rate, seed):
        self.rate, self.random, self.lock = rate, random.Random(seed), threading.Lock()
        self.next = time.perf_counter()

    def take(self):
        with self.lock:
            self.next += self.random.expovariate(self.rate)
            return self.next


def wait_until(moment):
    left = moment - time.perf_counter()
    if left > 0:
        time.sleep(left)


def percentiles(values):
    """Of seconds, in milliseconds; none of none."""
    values = sorted(values)
    if not values:
        return None
    at = lambda share: values[min(len(values) - 1, max(0, -int(-share * len(values) // 1) - 1))] * 1e3
    return {"count": len(values), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": values[-1] * 1e3}


def sample_queries():
    """The queries of the sample corpus by id."""
    with gzip.open(SAMPLE / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        return {query["_id"]: query["text"] for query in map(json.loads, lines)}


def judgments(split):
    """(query, document, grade) of a split of the sample corpus."""
    lines = (SAMPLE / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]
    return [tuple(line.split("\t")) for line in lines]


def start(data, log, *options):
    """A server on a free port, once it answers; what it says goes to a file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [ANCED, "serve", "--data", str(data), "--listen", f"127.0.0.1:{port}", *options]
    with log.open("w") as told:
        server = subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=told)
    for _ in range(START_SECONDS * 10):
        try:
            if call(port, "GET", "/readyz")[0] == 200:
                return server, port
        except OSError:
            pass
        if server.poll() is not None:
            break
        time.sleep(0.1)
    server.kill()
    sys.exit(f"the server did not get ready; see {log}")
