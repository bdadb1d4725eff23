"""Those who behave badly: wrong requests with the refusal that each must get, and connections that are left midway."""

import json
import random
import socket
import struct

# What each is refused with, as README and /openapi.json say.
REFUSALS = [
    (400, "POST", "/search", b'{"query": '),
    (400, "POST", "/search", b'\xff\xfe{"query": "a"}'),
    (422, "POST", "/search", b'{"query": ""}'),
    (422, "POST", "/search", b'{"query": "a", "unknown": 1}'),
    (422, "POST", "/search", b'{"query": "a", "queries": ["b"]}'),
    (422, "POST", "/search", b'{"query": "a", "k": 0}'),
    (422, "POST", "/search", b'{"query": "a", "k": -1}'),
    (422, "POST", "/search", b'{"query": "a", "filter": {"part": {"near": 1}}}'),
    (422, "POST", "/search", b'["a"]'),
    (415, "POST", "/search", b'{"query": "a"}', "text/plain"),
    (422, "GET", "/search?k=3"),
    (422, "GET", "/search?q=a&k=many"),
    (414, "GET", "/search?q=" + "a" * 20000),
    (405, "PUT", "/search", b"{}"),
    (404, "GET", "/nothing"),
    (404, "GET", "/documents/nobody"),
    (404, "DELETE", "/documents/nobody"),
    (422, "GET", "/documents?limit=0"),
    (422, "POST", "/documents", b'{"documents": [{"text": "without a name"}]}'),
    (422, "POST", "/documents", b'{"documents": []}'),
    (422, "POST", "/documents", b'{"title": "without a name"}\n', "application/x-ndjson"),
    (422, "POST", "/documents/delete", b'{"ids": []}'),
    (404, "POST", "/feedback", b'{"query": "a", "id": "nobody", "grade": 1}'),
    (422, "POST", "/feedback", b'{"query": "a", "id": "nobody", "grade": 9}'),
    (422, "POST", "/embed", b'{"texts": [], "kind": "query"}'),
    (422, "POST", "/embed", b'{"texts": ["a"], "kind": "neither"}'),
    (422, "POST", "/v1/embeddings", b'{"model": "any", "input": []}'),
    (422, "POST", "/v1/embeddings", b'{"model": "any", "input": [1, 2]}'),
    (422, "POST", "/admin/refresh", b'{"rounds": "three"}'),
    (404, "GET", "/admin/jobs/nobody"),
]


def malformed(chosen: random.Random):
    return chosen.choice(REFUSALS)


def drop(port, chosen, query):
    """Opens a connection and leaves it midway: before a request, in its head, in its body, before or in its answer."""
    body = json.dumps({"query": query, "k": 100, "include": ["vector"]}).encode()
    head = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    whole = head + f"content-length: {len(body)}\r\n\r\n".encode() + body
    stop = chosen.choice([0, len(head) // 2, len(whole) - len(body) // 2, len(whole), len(whole), None])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        if stop == 0:
            return
        connection.sendall(whole if stop is None else whole[:stop])
        if stop is None:
            connection.recv(500)
        if chosen.random() < 0.5:
            # Closed by a reset instead of an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def leave(port, job, seconds):
    """Hears the events of a job for so long at most, and leaves."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET /admin/jobs/{job}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        if not connection.recv(12).startswith(b"HTTP/1.1 200"):
            raise ValueError(f"the events of {job} were refused")
        connection.settimeout(seconds)
        try:
            for _ in range(50):
                if not connection.recv(4096):
                    return
        except TimeoutError:
            pass
