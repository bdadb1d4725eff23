"""How much open connections cost those who search: p99 with and without 2,000 of them, 500 of which are slow.

    benches/connections/measure.py URL [--open 2000] [--slow 500] [--clients 8] [--seconds 15] [--rounds 3]

The open ones idle after one request, or before it; the slow ones send a head or a body byte by byte, or take a large
answer byte by byte, and come again when they are cut off. The fast ones search, each on a connection of its own that it
keeps. Both loads take turns, so that what else the machine does falls on both. Only the standard library is used.
"""

import argparse
import asyncio
import json
import resource
import statistics
import time
from urllib.parse import urlsplit

QUERIES = [f"find files larger than {size} megabytes in {place}" for size in (1, 10, 100) for place in ("home", "tmp")]


def request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def answer(reader: asyncio.StreamReader) -> int:
    """Reads one answer; its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(head.split(" ", 2)[1])


async def search(place: tuple[str, int], until: float, times: list[float], failures: list[str]) -> None:
    reader, writer = await asyncio.open_connection(*place)
    turn = 0
    while time.monotonic() < until:
        turn += 1
        body = json.dumps({"query": QUERIES[turn % len(QUERIES)], "k": 10}).encode()
        began = time.perf_counter()
        writer.write(request("POST", "/search", body))
        status = await answer(reader)
        times.append(time.perf_counter() - began)
        if status != 200:
            failures.append(str(status))
    writer.close()


async def idle(place: tuple[str, int], has_asked: bool, ready: asyncio.Semaphore) -> None:
    """An open connection; opened again when the server closes it."""
    while True:
        try:
            async with ready:
                reader, writer = await asyncio.open_connection(*place)
                if has_asked:
                    writer.write(request("GET", "/healthz"))
                    await answer(reader)
            await reader.read(1)
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(1)


async def slow(place: tuple[str, int], kind: int, ready: asyncio.Semaphore) -> None:
    whole = request("POST", "/search", json.dumps({"query": "a" * 2000}).encode())
    while True:
        try:
            async with ready:
                reader, writer = await asyncio.open_connection(*place)
            if kind == 2:
                writer.write(request("GET", "/documents?limit=1000"))
                while await reader.read(1):
                    await asyncio.sleep(1)
            else:
                at = 0 if kind == 0 else whole.index(b"\r\n\r\n") + 4
                writer.write(whole[:at])
                while not reader.at_eof() and at < len(whole):
                    writer.write(whole[at : at + 1])
                    at += 1
                    try:
                        await asyncio.wait_for(reader.read(1000), 1)
                    except TimeoutError:
                        pass
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.1)


async def load(place: tuple[str, int], clients: int, seconds: float) -> tuple[list[float], list[str]]:
    times, failures = [], []
    until = time.monotonic() + seconds
    await asyncio.gather(*(search(place, until, times, failures) for _ in range(clients)))
    return times, failures


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1000


async def measure(arguments: argparse.Namespace) -> dict:
    url = urlsplit(arguments.url)
    place = (url.hostname, url.port)
    await load(place, arguments.clients, 3)
    rows = {"alone": [], "crowded": []}
    failures = []
    for _ in range(arguments.rounds):
        times, failed = await load(place, arguments.clients, arguments.seconds)
        rows["alone"].append(times)
        failures += failed
        ready = asyncio.Semaphore(100)
        crowd = [asyncio.create_task(slow(place, at % 3, ready)) for at in range(arguments.slow)]
        idlers = range(arguments.open - arguments.slow)
        crowd += [asyncio.create_task(idle(place, at % 2 == 0, ready)) for at in idlers]
        await asyncio.sleep(5)
        times, failed = await load(place, arguments.clients, arguments.seconds)
        rows["crowded"].append(times)
        failures += failed
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        await asyncio.sleep(3)
    report = {"clients": arguments.clients, "open": arguments.open, "slow": arguments.slow, "failures": len(failures)}
    for name, rounds in rows.items():
        report[name] = {
            "requests_per_second": round(sum(map(len, rounds)) / arguments.seconds / len(rounds), 1),
            "p50_ms": round(statistics.median(percentile(times, 0.5) for times in rounds), 2),
            "p99_ms": round(statistics.median(percentile(times, 0.99) for times in rounds), 2),
        }
    report["p99_ratio"] = round(report["crowded"]["p99_ms"] / report["alone"]["p99_ms"], 2)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--open", type=int, default=2000)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(measure(arguments)), indent=2))


if __name__ == "__main__":
    main()
