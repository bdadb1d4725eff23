"""The mixed load of benches/soak/run: every kind of request, each with the answer that it must get.

A client has documents of its own (`Client.documents`), so that what must be read, found and not found is certain at every
moment. There are SLOTS names a client: a write fills those that a deletion emptied first, so the store keeps its size.
"""

import base64
import http.client
import json
import math
import random
import struct
import threading
import time
import urllib.parse

import rude
from serving import LOCAL, ask, wait_until

SLOTS = 25
K = 10
# A score is a sum of some hundred 32-bit products, done in another order here.
TOLERANCE = 1e-4


class Wrong(Exception):
    """An answer that is not what it must be."""


class Record:
    """What was asked and answered, by every thread."""

    def __init__(self):
        self.lock = threading.Lock()
        self.started = time.perf_counter()
        self.done = []  # (seconds from the start to the planned arrival, kind, seconds to the answer)
        self.failures = []

    def now(self):
        return time.perf_counter() - self.started

    def failed(self, what, reason):
        kind = type(reason).__name__ if isinstance(reason, Exception) else "wrong"
        told = {"at": round(self.now(), 1), "clock": time.strftime("%H:%M:%S"), "what": what}
        with self.lock:
            self.failures.append(told | {"reason": f"{kind}: {reason}"[:1000]})

    def answered(self, planned, kind):
        with self.lock:
            self.done.append((planned - self.started, kind, time.perf_counter() - planned))


class Server:
    """What the load knows of the server; `job` is the refresh that runs or ran last, with what it must have said last."""

    def __init__(self, port, dimension, queries, pairs):
        self.port, self.dimension, self.queries, self.pairs = port, dimension, queries, pairs
        self.running = None
        self.ended = None


def must(holds, *what):
    if not holds:
        raise Wrong(" ".join(str(part) for part in what)[:800])


class Client:
    """One of those who ask: a thread, a connection, and documents that nobody else writes."""

    def __init__(self, server, number):
        self.server, self.number = server, number
        self.random = random.Random(number)
        self.documents = {}  # slot -> text, of those that are there
        self.last = {}  # slot -> the text that it had last
        self.written = 0

    def ask(self, wanted, method, path, body=None, kind="application/json"):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        status, read = ask(self.server.port, method, path, data, kind)
        must(status == wanted, method, path, "gave", status, "and not", wanted, read[:300])
        return read

    def json(self, *arguments):
        return json.loads(self.ask(200, *arguments))

    def name(self, slot):
        return f"client-{self.number}/{slot}"

    def path(self, slot):
        return "/documents/" + urllib.parse.quote(self.name(slot), safe="")

    def query(self):
        return self.random.choice(self.server.queries)

    def present(self):
        return self.random.choice(sorted(self.documents)) if self.documents else None

    def is_sound(self, hits, most=K):
        """Best first, as many as wanted at most, and of this client's documents only those that are there."""
        scores = [hit["score"] for hit in hits]
        must(len(hits) <= most and scores == sorted(scores, reverse=True), "badly ordered hits", hits)
        must(len({hit["id"] for hit in hits}) == len(hits), "a document twice", hits)
        ours = f"client-{self.number}/"
        for hit in hits:
            if hit["id"].startswith(ours) and "text" in hit:
                there = self.documents.get(int(hit["id"].removeprefix(ours)))
                must(hit["text"] == there, "found", hit, "where the document is", there)

    # Searches.

    def search(self):
        hits = self.json("POST", "/search", {"query": self.query(), "k": K})["hits"]
        must(len(hits) == K, "only", len(hits), "hits")
        self.is_sound(hits)

    def search_get(self):
        asked = urllib.parse.urlencode({"q": self.query(), "k": K, "include": self.random.choice(["", "text", "title,text"])})
        hits = self.json("GET", f"/search?{asked}")["hits"]
        must(len(hits) == K, "only", len(hits), "hits")
        self.is_sound(hits)

    def search_filtered(self):
        part, chars = self.random.randrange(10), self.random.randrange(20, 80)
        filters = [
            ({"part": part}, lambda of: of.get("part") == part),
            ({"part": [part, 3]}, lambda of: of.get("part") in (part, 3)),
            ({"chars": {"gte": chars}}, lambda of: of.get("chars", 0) >= chars),
            ({"and": [{"part": part}, {"chars": {"lt": chars}}]}, lambda of: of.get("part") == part and of["chars"] < chars),
            ({"not": {"part": part}}, lambda of: of.get("part") != part),
        ]
        filter, fits = self.random.choice(filters)
        hits = self.json("POST", "/search", {"query": self.query(), "k": K, "filter": filter})["hits"]
        must(hits and all(fits(hit["metadata"]) for hit in hits), filter, "found", hits)
        self.is_sound(hits)

    def search_own(self):
        """Everything that this client wrote, and nothing that it deleted, whatever generation answers."""
        body = {"query": self.query(), "k": 2 * SLOTS, "filter": {"client": self.number}, "include": ["text"]}
        hits = self.json("POST", "/search", body)["hits"]
        self.is_sound(hits, 2 * SLOTS)
        found = {hit["id"] for hit in hits}
        must(found == {self.name(slot) for slot in self.documents}, "found", found, "and not", sorted(self.documents))

    def search_vectors(self):
        """A score is that of the query's vector and the document's, where one generation gave both."""
        query = self.query()
        answer = self.json("POST", "/search", {"query": query, "k": K, "include": ["metadata", "vector"]})
        embedded = self.json("POST", "/embed", {"texts": [query], "kind": "query"})
        for hit in answer["hits"]:
            must(len(hit["vector"]) == self.server.dimension, "a vector of", len(hit["vector"]))
            score = sum(map(lambda a, b: a * b, hit["vector"], embedded["vectors"][0]))
            same = answer["generation"] == embedded["generation"]
            must(not same or abs(score - hit["score"]) <= TOLERANCE, hit["id"], "scores", hit["score"], "and not", score)

    def search_batch(self):
        queries = [self.query() for _ in range(5)]
        answer = self.json("POST", "/search", {"queries": queries, "k": K, "exact": self.random.random() < 0.5})
        must(len(answer["results"]) == 5, "not five results")
        for result in answer["results"]:
            must(len(result["hits"]) == K, "only", len(result["hits"]), "hits")
            self.is_sound(result["hits"])

    def search_deep(self):
        body = {"query": self.query(), "k": 100, "offset": self.random.randrange(50), "ef": 256, "min_score": 0.1}
        hits = self.json("POST", "/search", body)["hits"]
        must(all(hit["score"] >= 0.1 - 1e-6 for hit in hits), "scores below", 0.1)
        self.is_sound(hits, 100)

    # Documents.

    def new(self, slot):
        self.written += 1
        # No two texts alike, also to a tokenizer that knows no case and cuts their ends off.
        text = f"case {self.number} {self.written}: {self.query()}"
        return text, {"id": self.name(slot), "text": text, "metadata": {"client": self.number, "slot": slot}}

    def slots(self, count):
        """Empty ones first."""
        empty = [slot for slot in range(SLOTS) if slot not in self.documents]
        there = sorted(self.documents)
        self.random.shuffle(there)
        return (empty + there)[:count]

    def keep(self, slot, text):
        self.documents[slot] = self.last[slot] = text

    def write(self):
        [slot] = self.slots(1)
        text, document = self.new(slot)
        answer = self.json("POST", "/documents", {"documents": [document]})
        self.keep(slot, text)
        must(answer["written"] == 1, answer)
        self.is_best(slot)

    def is_best(self, slot, **more):
        body = {"query": self.documents[slot], "k": K, "include": ["text"], **more}
        hits = self.json("POST", "/search", body)["hits"]
        self.is_sound(hits)
        must(hits and hits[0]["id"] == self.name(slot), self.name(slot), "is not the best hit of its own text", hits[:3])

    def write_many(self):
        slots = self.slots(8)
        made = {slot: self.new(slot) for slot in slots}
        lines = "".join(json.dumps(document) + "\n" for _, document in made.values())
        answer = self.json("POST", "/documents", lines.encode(), "application/x-ndjson")
        for slot, (text, _) in made.items():
            self.keep(slot, text)
        must(answer["written"] == 8, answer)
        self.is_best(self.random.choice(slots))

    def write_half(self):
        """A stream whose second line is broken: the first is written."""
        [slot] = self.slots(1)
        text, document = self.new(slot)
        body = json.dumps(document).encode() + b"\n{\"id\": \n"
        problem = json.loads(self.ask(400, "POST", "/documents", body, "application/x-ndjson"))
        self.keep(slot, text)
        must((problem["line"], problem["written"]) == (2, 1), problem)

    def read(self):
        slot = self.random.randrange(SLOTS)
        there = self.documents.get(slot)
        read = json.loads(self.ask(404 if there is None else 200, "GET", self.path(slot)))
        must(there is None or read["text"] == there, self.name(slot), "is", read, "and not", there)

    def delete(self):
        slot = self.present()
        if slot is None:
            return self.write()
        answer = self.json("DELETE", self.path(slot))
        del self.documents[slot]
        must(answer["deleted"] == 1, answer)
        self.ask(404, "GET", self.path(slot))

    def delete_many(self):
        slots = sorted(self.documents)[:6]
        ids = [self.name(slot) for slot in slots] + [self.name(SLOTS + 1)]
        answer = self.json("POST", "/documents/delete", {"ids": ids})
        for slot in slots:
            del self.documents[slot]
        must(answer["deleted"] == len(slots), answer)

    def list(self):
        path = "/documents?" + urllib.parse.urlencode({"after": f"client-{self.number}/", "limit": SLOTS})
        read = {document["id"]: document["text"] for document in self.json("GET", path)["documents"]}
        for slot, text in self.documents.items():
            must(read.get(self.name(slot)) == text, self.name(slot), "is listed as", read.get(self.name(slot)))

    # The rest.

    def feedback(self):
        query, document = self.random.choice(self.server.pairs)
        answer = self.json("POST", "/feedback", {"query": query, "id": document, "grade": self.random.choice([0, 1, 1, 2])})
        must(1 <= answer["votes"]["up"] + answer["votes"]["down"] <= 15, answer)

    def embed(self):
        kind, count = self.random.choice(["query", "passage"]), self.random.randrange(1, 9)
        answer = self.json("POST", "/embed", {"texts": [self.query() for _ in range(count)], "kind": kind})
        must(len(answer["vectors"]) == count, "not", count, "vectors")
        for vector in answer["vectors"]:
            self.is_vector(vector)

    def is_vector(self, vector):
        length = math.sqrt(sum(part * part for part in vector))
        must(len(vector) == self.server.dimension and abs(length - 1) < 1e-3, len(vector), "components, length", length)

    def openai(self):
        body = {"model": "any", "input": [self.query(), self.query()], "encoding_format": self.random.choice(["float", "base64"])}
        answer = self.json("POST", "/v1/embeddings", body)
        must([of["index"] for of in answer["data"]] == [0, 1], answer["usage"])
        for of in answer["data"]:
            vector = of["embedding"]
            if isinstance(vector, str):
                vector = struct.unpack(f"<{self.server.dimension}f", base64.b64decode(vector))
            self.is_vector(vector)

    def look(self):
        paths = ["/", "/training", "/docs/", "/openapi.json", "/healthz", "/readyz", "/search/examples", "/v1/models"]
        paths += ["/admin/status", "/admin/generations", "/admin/jobs", "/admin/refresh"]
        self.ask(200, "GET", self.random.choice(paths))

    def malformed(self):
        refusal = rude.malformed(self.random)
        self.ask(*refusal)
        # These are refused before their body is read, and the server may end the connection then.
        if refusal[0] in (405, 415):
            LOCAL.close()

    def too_large(self):
        self.ask(413, "POST", "/documents", b" " * (9 << 20))

    def dropped(self):
        rude.drop(self.server.port, self.random, self.query())

    def followed(self):
        """Hears a refresh that runs for a while and leaves, or one that has ended to its end."""
        if running := self.server.running:
            return rude.leave(self.server.port, running, self.random.uniform(0.2, 3))
        if self.server.ended:
            job, state = self.server.ended
            events = self.ask(200, "GET", f"/admin/jobs/{job}/events").decode().split("\n\n")
            last = [event for event in events if "data:" in event][-1]
            must(f'"state":"{state}"' in last.replace(" ", ""), "the last event of", job, "is", last)


# How often, of some 250; what takes longest is rarest.
WEIGHTS = {
    Client.search: 70,
    Client.search_get: 20,
    Client.search_filtered: 20,
    Client.search_own: 10,
    Client.search_vectors: 10,
    Client.search_batch: 5,
    Client.search_deep: 5,
    Client.write: 16,
    Client.write_many: 2,
    Client.write_half: 2,
    Client.read: 15,
    Client.delete: 14,
    Client.delete_many: 2,
    Client.list: 3,
    Client.feedback: 8,
    Client.embed: 5,
    Client.openai: 5,
    Client.look: 12,
    Client.malformed: 15,
    Client.too_large: 0.2,
    Client.dropped: 12,
    Client.followed: 5,
}
# Those that are one search: their time is the latency of a search.
SEARCHES = {of.__name__ for of in (Client.search, Client.search_get, Client.search_filtered, Client.search_own)}


def run(client, arrivals, record, end):
    """Asks until the end."""
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while not end.is_set():
        planned = arrivals.take()
        wait_until(planned)
        [kind] = client.random.choices(kinds, weights)
        try:
            kind(client)
        # A missing field is a wrong answer too.
        except (Wrong, OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            record.failed(kind.__name__, error)
        else:
            record.answered(planned, kind.__name__)


def lost(client):
    """What a client wrote and is not as it must be, by reading and by searching, in the graph and in all vectors."""
    wrong = []
    for slot in range(SLOTS):
        there = client.documents.get(slot)
        try:
            read = json.loads(client.ask(404 if there is None else 200, "GET", client.path(slot)))
            if there is not None:
                must(read["text"] == there, client.name(slot), "is", read, "and not", there)
                client.is_best(slot)
                client.is_best(slot, exact=True)
            elif slot in client.last:
                body = {"query": client.last[slot], "k": K, "include": []}
                found = [hit["id"] for hit in client.json("POST", "/search", body)["hits"]]
                must(client.name(slot) not in found, client.name(slot), "is found after it was deleted")
        except (Wrong, OSError, http.client.HTTPException, ValueError, LookupError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
    try:
        client.search_own()
    except Wrong as error:
        wrong.append(str(error))
    return wrong
