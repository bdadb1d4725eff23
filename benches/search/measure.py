"""The measuring half of benches/search/run: waits for servers, checks that they agree, drives wrk, writes the report.

A server is given as NAME,URL,PID. Only the standard library is used.
"""

import argparse
import gzip
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
STAGES = ["queue", "tokenize", "encode", "search", "fetch"]
K = 10
WARM_UP_SECONDS = 3
START_LIMIT_SECONDS = 600
CHECKED_QUERIES = 100
# Two HNSW graphs over the same vectors differ by a few near ties; less than this means different answers.
LEAST_OVERLAP = 0.9
TIE = 1e-5


class Server(NamedTuple):
    name: str
    url: str
    pid: int


def server(text: str) -> Server:
    name, url, pid = text.split(",")
    return Server(name, url, int(pid))


def get(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def wait_until_ready(target: Server, path: str) -> float:
    """Seconds until `path` answers 200."""
    began = time.monotonic()
    while time.monotonic() - began < START_LIMIT_SECONDS:
        if not is_running(target.pid):
            raise SystemExit(f"{target.name} stopped before it was ready")
        try:
            get(target.url + path)
            return time.monotonic() - began
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit(f"{target.name} was not ready after {START_LIMIT_SECONDS} s")


def is_running(pid: int) -> bool:
    """Whether the process lives; one that ended but was not waited for does not."""
    try:
        return " Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


def read_queries(sample: Path) -> list[str]:
    """The texts of the dev and test splits, in an order that is the same on every run."""
    wanted = set()
    for split in ("dev", "test"):
        wanted |= {line.split("\t")[0] for line in (sample / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]}
    with gzip.open(sample / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        queries = [query["text"] for query in map(json.loads, lines) if query["_id"] in wanted]
    random.Random(1).shuffle(queries)
    return queries


def body_of(query: str) -> str:
    return json.dumps({"query": query, "k": K, "include": ["text"]})


def agreement(servers: list[Server], queries: list[str]) -> dict:
    """How far the top 10 of both servers agree: mean share of common ids, greatest score difference of those.

    Documents that tie at the tenth place count as common: which of them a server takes is its own affair.
    """
    shares, difference = [], 0.0
    for query in queries[:CHECKED_QUERIES]:
        answers = [json.loads(get(f"{one.url}/search", body_of(query).encode())) for one in servers]
        first, second = ({hit["id"]: hit["score"] for hit in answer["hits"]} for answer in answers)
        common = first.keys() & second.keys()
        last = min(second.values(), default=0.0)
        tied = [key for key in first.keys() - common if abs(first[key] - last) < TIE]
        shares.append((len(common) + len(tied)) / K)
        difference = max([difference, *(abs(first[key] - second[key]) for key in common)])
    return {"queries": len(shares), "overlap_at_10": statistics.mean(shares), "greatest_score_difference": difference}


def wrk(target: Server, clients: int, seconds: int, bodies: Path) -> dict:
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(HERE / "load.lua")]
    done = subprocess.run([*command, f"{target.url}/search", "--", str(bodies)], capture_output=True, text=True)
    result = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not result:
        raise SystemExit(f"wrk failed on {target.name}: {done.stderr or done.stdout}")
    measured = json.loads(result[1])
    answered = measured["requests"] - measured["non_2xx"]
    measured["requests_per_second"] = answered / measured["seconds"]
    return measured


def settle(target: Server, query: str) -> None:
    """Waits until the server has worked off what the last load left in its queue: that would run into the next one."""
    for _ in range(60):
        try:
            get(f"{target.url}/search", body_of(query).encode())
            return
        except urllib.error.HTTPError:
            time.sleep(1)
    raise SystemExit(f"{target.name} does not answer any more")


def metrics(target: Server) -> dict[str, float]:
    """The samples of /metrics by name and labels."""
    samples = {}
    for line in get(f"{target.url}/metrics").decode().splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
    return samples


def mean_between(before: dict, after: dict, name: str, labels: str = "") -> float | None:
    """Mean of what a histogram observed between two readings; None where it observed nothing."""
    count, total = (after.get(key, 0) - before.get(key, 0) for key in (f"{name}_count{labels}", f"{name}_sum{labels}"))
    return total / count if count else None


def inside(before: dict, after: dict) -> dict:
    stage = "anced_search_stage_duration_seconds"
    seconds = {one: mean_between(before, after, stage, f'{{stage="{one}"}}') for one in STAGES}
    return {
        "stage_ms": {one: None if value is None else value * 1e3 for one, value in seconds.items()},
        "batch_queries": mean_between(before, after, "anced_encoder_batch_queries"),
        "batch_tokens": mean_between(before, after, "anced_encoder_batch_tokens"),
    }


def memory(target: Server) -> dict[str, float]:
    """MiB: the peak since the start, and now."""
    status = Path(f"/proc/{target.pid}/status").read_text()
    read = lambda key: int(re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024
    return {"peak_mib": read("VmHWM"), "now_mib": read("VmRSS")}


def load(servers: list[Server], arguments, queries: list[str]) -> list[dict]:
    """Every load in turn, the servers alternating within each."""
    bodies = arguments.work / "bodies"
    bodies.write_text("".join(body_of(query) + "\n" for query in queries))
    loads = []
    for turn in range(arguments.rounds):
        for clients in arguments.clients:
            for target in servers:
                for one in servers:
                    settle(one, queries[0])
                wrk(target, clients, WARM_UP_SECONDS, bodies)
                settle(target, queries[0])
                is_anced = target.name == "anced"
                before = metrics(target) if is_anced else {}
                measured = wrk(target, clients, arguments.seconds, bodies)
                if is_anced:
                    measured |= inside(before, metrics(target))
                loads.append({"server": target.name, "clients": clients, "round": turn + 1, **measured})
                rate = measured["requests_per_second"]
                print(f"round {turn + 1}, {clients} clients, {target.name}: {rate:.0f} requests/s", file=sys.stderr)
    return loads


def machine() -> dict:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    packages = ["faiss-cpu", "fastapi", "sentence-transformers", "torch", "uvicorn"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
    }


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def mean(loads: list[dict], read) -> float | None:
    values = [value for value in map(read, loads) if value is not None]
    return statistics.mean(values) if values else None


def table(report: dict) -> str:
    loads, agreed, host = report["loads"], report["agreement"], report["machine"]
    of = lambda name, clients: [one for one in loads if one["server"] == name and one["clients"] == clients]
    clients = sorted({one["clients"] for one in loads})
    lines = [
        f"{host['date']}, {host['processor']}, {host['cores']} cores shared by the server and wrk. POST /search, k = {K}, "
        f"{report['queries']:,} queries in turn, {report['seconds']} s a load, the servers alternating. Closed loop: a "
        "client sends its next request when its last was answered. Means of the rounds.",
        "",
        f"Top {K} of both on {agreed['queries']} queries: {agreed['overlap_at_10']:.1%} in common, scores of those at "
        f"most {agreed['greatest_score_difference']:.1e} apart.",
        "",
        row("clients", "server", "requests/s", "each round", "p50 ms", "p99 ms", "errors"),
        row("--:", "---", "--:", "--:", "--:", "--:", "--:"),
    ]
    for count in clients:
        for name in report["servers"]:
            runs = of(name, count)
            rate = [one["requests_per_second"] for one in runs]
            errors = sum(one["non_2xx"] + one["socket_errors"] for one in runs)
            each = ", ".join(number(value, 0) for value in rate)
            p50, p99 = (number(mean(runs, lambda one: one[key])) for key in ("p50_ms", "p99_ms"))
            lines.append(row(count, name, number(statistics.mean(rate), 0), each, p50, p99, errors))
    lines += [
        "",
        "Mean time by stage inside anced, ms, and what one run of the encoder held:",
        "",
        row("clients", *STAGES, "queries a batch", "tokens a batch"),
        row(*["--:"] * (len(STAGES) + 3)),
    ]
    for count in clients:
        runs = of("anced", count)
        stages = [number(mean(runs, lambda one: one["stage_ms"][stage]), 3) for stage in STAGES]
        batch = [number(mean(runs, lambda one: one[key])) for key in ("batch_queries", "batch_tokens")]
        lines.append(row(count, *stages, *batch))
    lines += [
        "",
        row("server", "start, corpus encoded, s", "peak memory, MiB", "memory after, MiB"),
        row("---", "--:", "--:", "--:"),
    ]
    for name, facts in report["servers"].items():
        lines.append(row(name, number(facts["start_seconds"]), number(facts["peak_mib"], 0), number(facts["now_mib"], 0)))
    return "\n".join(lines)


def run_load(arguments) -> None:
    servers = arguments.servers
    queries = read_queries(arguments.sample)
    agreed = agreement(servers, queries)
    if agreed["overlap_at_10"] < LEAST_OVERLAP:
        raise SystemExit(f"the servers answer differently, the comparison would mean nothing: {agreed}")
    loads = load(servers, arguments, queries)
    facts = {
        one.name: {"start_seconds": start, **memory(one)} for one, start in zip(servers, arguments.start, strict=True)
    }
    report = {
        "machine": machine(),
        "queries": len(queries),
        "seconds": arguments.seconds,
        "agreement": agreed,
        "servers": facts,
        "loads": loads,
    }
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    ready = verbs.add_parser("ready", help="wait for a server, print the seconds that it took")
    ready.add_argument("server", type=server)
    ready.add_argument("path")
    ready.set_defaults(act=lambda arguments: print(wait_until_ready(arguments.server, arguments.path)))
    loading = verbs.add_parser("load", help="compare two servers that run")
    loading.add_argument("servers", type=server, nargs=2)
    loading.add_argument("--start", type=float, nargs=2, required=True)
    loading.add_argument("--sample", type=Path, required=True)
    loading.add_argument("--work", type=Path, required=True)
    loading.add_argument("--json", type=Path, required=True)
    loading.add_argument("--seconds", type=int, default=15)
    loading.add_argument("--rounds", type=int, default=2)
    loading.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    loading.set_defaults(act=run_load)
    arguments = parser.parse_args()
    arguments.act(arguments)


if __name__ == "__main__":
    main()
