"""The measuring half of benches/train/run: both trainers in turn, round by round, then the table.

Each is a command that prints one line of JSON last: what, steps, median_s, p10_s, p90_s, peak_rss_mib, loss_first,
loss_last, and peak_device_mib on a GPU. Only the standard library is used.
"""

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

# fp32 in another order of operations moves the first loss by less, another batch or other work by more.
LOSS_TOLERANCE = 1e-3


def run(name: str, command: list[str]) -> dict:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise SystemExit(f"{name} failed: {shlex.join(command)}\n{done.stderr or done.stdout}")
    try:
        return json.loads(lines[-1])
    except json.JSONDecodeError:
        raise SystemExit(f"{name} did not end with a line of JSON but with: {lines[-1]}") from None


def machine() -> dict:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def table(report: dict) -> str:
    host, trainers = report["machine"], report["trainers"]
    rounds = len(next(iter(trainers.values()))["rounds"])
    lines = [
        f"{host['date']}, {host['processor']}, {host['cores']} cores, load {host['load']:.1f} before. "
        f"{report['work']}. Median seconds of a step, the trainers alternating, {rounds} rounds.",
        "",
        row("trainer", *(f"round {number + 1}" for number in range(rounds)), "median", "p10 to p90", "peak memory, MiB"),
        row("---", *["--:"] * (rounds + 3)),
    ]
    for trainer in trainers.values():
        runs = trainer["rounds"]
        each = (f"{one['median_s']:.3f}" for one in runs)
        spread = f"{min(one['p10_s'] for one in runs):.3f} to {max(one['p90_s'] for one in runs):.3f}"
        memory = f"{max(one['peak_rss_mib'] for one in runs):,.0f}"
        if "peak_device_mib" in runs[0]:
            memory += f", device {max(one['peak_device_mib'] for one in runs):,.0f}"
        lines.append(row(runs[0]["what"], *each, f"{trainer['median_s']:.3f}", spread, memory))
    losses = {name: trainer["rounds"][0] for name, trainer in trainers.items()}
    said = "; ".join(f"{name} {one['loss_first']:.6f} to {one['loss_last']:.6f}" for name, one in losses.items())
    lines += ["", f"anced takes {report['ratio']:.2f} times as long as PyTorch. Loss of the first and last step: {said}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anced", required=True, help="a command line")
    parser.add_argument("--pytorch", required=True, help="a command line")
    parser.add_argument("--work", required=True, help="what a step is, in words")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--random", action="store_true", help="losses differ by chance (dropout)")
    arguments = parser.parse_args()

    commands = {"anced": shlex.split(arguments.anced), "pytorch": shlex.split(arguments.pytorch)}
    host = machine()
    runs = {name: [] for name in commands}
    for turn in range(arguments.rounds):
        for name, command in commands.items():
            runs[name].append(run(name, command))
            print(f"round {turn + 1}, {name}: {runs[name][-1]['median_s']:.3f} s a step", file=sys.stderr)
    trainers = {
        name: {"command": commands[name], "median_s": statistics.median(one["median_s"] for one in each), "rounds": each}
        for name, each in runs.items()
    }
    report = {
        "machine": host,
        "work": arguments.work,
        "ratio": trainers["anced"]["median_s"] / trainers["pytorch"]["median_s"],
        "trainers": trainers,
    }
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))

    apart = abs(runs["anced"][0]["loss_first"] - runs["pytorch"][0]["loss_first"])
    if not arguments.random and not apart <= LOSS_TOLERANCE:
        raise SystemExit(f"the first losses are {apart:.1e} apart: the trainers did not do the same work")


if __name__ == "__main__":
    main()
