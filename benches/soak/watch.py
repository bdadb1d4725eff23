"""What a process holds while it is under load, and whether that grows.

Memory, descriptors, threads and disk move with what goes on: a swap has two generations in memory, a refresh a pipe to its
process, a search a thread. So only equal moments are compared: the *settled* ones, between refreshes, from SETTLE seconds
after one ended or a generation was taken live, for WINDOW seconds; the load goes on as ever, and one generation is in
memory. What a settled window shows is the median of its samples.

The first WARM_UP windows are left out: allocators and thread pools take their working size with the first swaps, and
generations come to the number that is retained. What is left is judged twice, since each sees what the other may miss:

- The median of the last third may be above that of the first third by GROWTH at most. A leak of a session or its weights
  (90 MB for all-MiniLM-L6-v2) or of an index (3 MB) in each swap, or of 1 kB a request, is several times that in an hour.
- The slope (Theil-Sen: the median of the slopes between all pairs, which a few odd windows do not bend) over the whole time
  may come to GROWTH of the level at most.

5 % of the level is what fragmentation and the different sizes of indexes make from window to window.
"""

import os
import pathlib
import statistics
import threading
import time

SETTLE = 20
WINDOW = 25
WARM_UP = 4
GROWTH = 0.05
# Fewer windows than this after the warm-up say nothing.
LEAST = 6
EVERY = 5
DISK_EVERY = 15


def disk(folder):
    """Bytes on the disk below a folder; files may go while they are counted."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                pass
    return total


def descriptors(pid):
    """(sockets, others) that a process has open."""
    folder, sockets, others = f"/proc/{pid}/fd", 0, 0
    for name in os.listdir(folder):
        try:
            is_socket = os.readlink(f"{folder}/{name}").startswith("socket:")
        except OSError:
            continue
        sockets, others = sockets + is_socket, others + (not is_socket)
    return sockets, others


def children(pid):
    """Processes that it started and that are still there, dead ones that nobody waited for included."""
    return [int(child) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def memory(pid):
    """What /proc says, in bytes but for threads."""
    wanted = {"RssAnon", "RssFile", "RssShmem", "VmHWM", "Threads"}
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {key: rest.split() for key, _, rest in (line.partition(":") for line in lines) if key in wanted}
    return {key: int(words[0]) * (1024 if len(words) > 1 else 1) for key, words in found.items()}


def mappings(pid):
    """(all, those of deleted files): a generation that is let go must take its mapping along."""
    lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
    return len(lines), sum(line.endswith("(deleted)") for line in lines)


class Watch(threading.Thread):
    """Takes samples until it is stopped. `phase` is what goes on, `window` the number of the settled time, if any."""

    def __init__(self, pid, data, record, series):
        super().__init__(daemon=True)
        self.pid, self.data, self.record, self.series = pid, data, record, series
        self.phase, self.window, self.samples = "idle", None, []
        self.ended = threading.Event()

    def run(self):
        room, measured = {}, -DISK_EVERY
        while not self.ended.wait(EVERY):
            try:
                if time.monotonic() - measured >= DISK_EVERY:
                    measured = time.monotonic()
                    room = {name: disk(self.data / name) for name in ("store", "generations", "jobs")}
                    room["kept"] = sum(entry.is_dir() for entry in (self.data / "generations").iterdir())
                self.samples.append(self.sample() | room)
            # The process may be gone: what asks it says so.
            except (OSError, ValueError) as error:
                self.record.failed("sample", error)

    def sample(self):
        window, phase = self.window, self.phase
        sockets, others = descriptors(self.pid)
        maps, deleted = mappings(self.pid)
        return {
            "at": round(self.record.now(), 1),
            "phase": phase,
            "window": window,
            **memory(self.pid),
            # Every socket of this process is one of a client.
            "sockets": sockets,
            "client_sockets": descriptors("self")[0],
            "files": others,
            "maps": maps,
            "deleted_maps": deleted,
            "children": len(children(self.pid)),
            "series": self.series(),
        }

    def stop(self):
        self.ended.set()
        self.join()


def windows(samples):
    """The medians of each settled window."""
    numbers = sorted({sample["window"] for sample in samples if sample["window"] is not None})
    of = [[sample for sample in samples if sample["window"] == number] for number in numbers]
    keys = [key for key, value in samples[0].items() if isinstance(value, (int, float)) and key != "window"] if samples else []
    medians = [{key: statistics.median(sample[key] for sample in window) for key in keys} for window in of]
    for window, middle in zip(of, medians):
        # Between closing a connection and its end on the other side a count may be one too many.
        middle["strange_sockets"] = min(sample["sockets"] - sample["client_sockets"] for sample in window)
    return medians


def slope(points):
    """Theil-Sen, a second."""
    pairs = [(a, b) for i, a in enumerate(points) for b in points[i + 1 :] if b[0] > a[0]]
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)


def trend(settled, key):
    """Level at first and at last, and the growth that the slope makes of all the time between them."""
    third = max(1, len(settled) // 3)
    first, last = (statistics.median(of[key] for of in part) for part in (settled[:third], settled[-third:]))
    by_slope = slope([(of["at"], of[key]) for of in settled]) * (settled[-1]["at"] - settled[0]["at"])
    return {"first": first, "last": last, "growth": last - first, "by_slope": by_slope}


def judge(samples):
    """What is not flat, in words, and the figures."""
    settled = windows(samples)[WARM_UP:]
    if len(settled) < LEAST:
        return None, {"windows": len(settled)}
    figures, faults = {"windows": len(settled)}, []
    # Threads and series may be a few more or less with what was asked last; files and strange sockets may not.
    allowed = {
        "RssAnon": lambda first: GROWTH * first,
        "Threads": lambda first: 4,
        "files": lambda first: 0,
        "strange_sockets": lambda first: 0,
        "deleted_maps": lambda first: 0,
        "series": lambda first: GROWTH * first,
        "generations": lambda first: GROWTH * first,
        # The log of changes keeps some 60 bytes of each write and deletion; the map grows in steps.
        "store": lambda first: 16 << 20,
        # A job that ended keeps the negatives of its rounds, some MB; what it would need to go on is hundreds.
        "jobs": lambda first: 64 << 20,
    }
    for key, most in allowed.items():
        figures[key] = of = trend(settled, key)
        if max(of["growth"], of["by_slope"]) > most(of["first"]):
            faults.append(f"{key} grew from {of['first']:.0f} to {of['last']:.0f} (by the slope {of['by_slope']:+.0f})")
    if left := [of["at"] for of in settled if of["children"]]:
        faults.append(f"a training process was there between refreshes, at {left}")
    return faults, figures
