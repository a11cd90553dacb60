"""`surgdino doctor`: has this machine what surgdino needs? Packages, decoders, disk, memory, GPU; a dataset counted."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from surgdino import console, machine
from surgdino.errors import SurgdinoError, shown
from surgdino.wording import counted

USAGE = "surgdino doctor [dataset=NAME data.root=FOLDER] [data.store=FOLDER] [--json]"
HELP = f"""{USAGE}

Looks at Python, the installed packages, torch beside torchvision and the driver, GPUs, decoders and codecs, processors,
memory, /dev/shm, and the disk that data.store is on. With a dataset: what `surgdino verify` finds, in one line.
The exit code is 1 where something must be changed before surgdino can work, 0 otherwise. --json prints the findings as
one JSON list of {{what, state, found, fix}}; a state is ok, note or fault."""

# What most recordings and pictures of theatres are kept in.
CODECS = ("h264", "hevc", "mpeg2video", "mpeg4", "vp9", "av1", "mjpeg")
_TRIED_BYTES = 64 << 20  # written to the disk and read back
_SLOW_DISK = 30e6  # bytes a second: about 400 stored frames, where one GPU takes several hundred
_LITTLE_DISK, _LITTLE_SHARED = 10 << 30, 1 << 30
_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "fault": ("✗", "bold red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, whether it is well (`ok`, `note`, `fault`), what was found, and what to do."""

    what: str
    state: str
    found: str
    fix: str = ""


def main(words: Sequence[str]) -> int:
    """Print what was found, each as soon as it is known; 1 where something must be changed."""
    as_json = "--json" in words
    settings = [word for word in words if word != "--json"]
    for word in settings:
        if "=" not in word or word.startswith("-"):
            raise SurgdinoError(f"unknown word {word!r}", fix=f"use {USAGE}")
    store = dict(word.split("=", 1) for word in settings).get("data.store", "store")
    looks = {**LOOKS, "disk": lambda: disk(Path(store))}
    if any(word.startswith(("data.root=", "recipe=", "dataset=")) for word in settings):
        looks["data"] = lambda: data(settings)
    found = []
    for what, look in looks.items():
        for finding in _careful(what, look):
            found.append(finding)
            if not as_json:
                mark, style = _MARKS[finding.state]
                console.say(f"{mark} {finding.what:<12} {finding.found}", style if finding.state != "ok" else "")
                if finding.fix:
                    console.say(f"  {'':<12} {finding.fix}", "dim")
    faults = sum(finding.state == "fault" for finding in found)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        console.say(f"✗ {faults} to be changed" if faults else "✓ surgdino can work here", "bold")
    return 1 if faults else 0


def _careful(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a look finds; a look that fails is a finding too, and costs none of the others."""
    try:
        yield from look()
    except SurgdinoError as error:
        yield Finding(what, "fault", error.line())
    except Exception as error:  # a broken installation raises anything
        said = shown(" ".join(str(error).split()), 200)
        yield Finding(what, "fault", f"{type(error).__name__}: {said}")


def python() -> Iterator[Finding]:
    """The interpreter, against what the package asks for."""
    wanted = SpecifierSet(metadata("surgdino")["Requires-Python"])
    found = f"{platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    if wanted.contains(platform.python_version()):
        yield Finding("Python", "ok", found)
    else:
        yield Finding("Python", "fault", found, f"install Python {wanted}")


def packages() -> Iterator[Finding]:
    """Every declared dependency is installed in a version that is asked for; extras are notes."""
    lines = map(Requirement, requires("surgdino") or ())
    needed = [line for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    wrong = 0
    for line in needed:
        have = _version(line.name)
        if have is None or not line.specifier.contains(have, prereleases=True):
            wrong += 1
            what = f"{line.name} {have or 'is missing'}; surgdino needs {line.specifier or 'it'}"
            yield Finding("packages", "fault", what, f"pip install '{line.name}{line.specifier}'")
    if not wrong:
        yield Finding("packages", "ok", f"surgdino {_version('surgdino')}, all {len(needed)} dependencies as declared")
    extras = {
        "fast": "simplejpeg",
        "excel": "openpyxl",
        "dask": "distributed",
        "slurm": "hydra-submitit-launcher",
        "xformers": "xformers",
    }
    there = [f"{extra} ({name} {_version(name)})" for extra, name in extras.items() if _version(name)]
    yield Finding("extras", "ok", ", ".join(there) or "none installed")


def torchvision() -> Iterator[Finding]:
    """Whether the two were built for each other: a CPU build of torch beside the published torchvision is not."""
    from surgdino.backbone.timm_import import compiled_operators_load

    pair = f"torch {_version('torch')}, torchvision {_version('torchvision')}, timm {_version('timm')}"
    if compiled_operators_load():
        yield Finding("torch", "ok", pair)
        return
    torch, _, build = str(_version("torch")).partition("+")
    fix = f"pip install torch=={torch} torchvision=={str(_version('torchvision')).partition('+')[0]} --index-url URL,"
    fix += f" with the URL that pytorch.org/get-started gives for {build or 'your'} builds"
    yield Finding("torch", "note", f"{pair}: torchvision's operators do not load; other programs fail at import", fix)


def gpus() -> Iterator[Finding]:
    """Cards that torch can use, or why there is none."""
    import torch

    from surgdino.engine.devices import why_no_gpu, without_kernels

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            ability = f"compute capability {card.major}.{card.minor}"
            found = f"{index}: {card.name}, {card.total_memory / 2**30:.0f} GiB, {ability}"
            unfit = without_kernels(torch.device("cuda", index))
            yield Finding(
                "GPU", "fault" if unfit else "ok", f"{found}; {unfit[0]}" if unfit else found, *(unfit or ())[1:]
            )
        if find_spec("triton") is None or not (shutil.which("cc") or shutil.which("gcc")):
            found = "triton or a C compiler is missing: training runs uncompiled, which is slower"
            yield Finding("compiling", "note", found, "install gcc, and torch's own build of triton")
        return
    why = why_no_gpu()
    if why:
        yield Finding("GPU", "fault", why[0], why[1])
    else:
        fix = "recipe=cpu_lab is made for this"
        yield Finding("GPU", "note", "none; training runs on the processor, many times slower", fix)


def decoders() -> Iterator[Finding]:
    """PyAV with the codecs that recordings are kept in; decord where it is the second choice."""
    import av

    missing = [name for name in CODECS if name not in av.codecs_available]
    found = f"PyAV {av.__version__}, {len(CODECS) - len(missing)} of {len(CODECS)} codecs of recordings"
    if missing:
        yield Finding(
            "decoders", "note", f"{found}; not {', '.join(missing)}", "install PyAV's own wheel: pip install av"
        )
    else:
        yield Finding("decoders", "ok", found)
    if decord := _version("decord"):
        yield Finding("decoders", "ok", f"decord {decord} (data.decoder=decord)")


def processors() -> Iterator[Finding]:
    """What this process may use of processors and memory; a container's limits count."""
    count, memory = machine.cores(), machine.memory()
    threads = os.environ.get("OMP_NUM_THREADS")
    set_to = f", OMP_NUM_THREADS={threads}" if threads else ""
    state = "ok" if count > 1 else "note"
    fix = "" if count > 1 else "one processor both prepares frames and computes; give the job more"
    found = f"{count} of {machine.all_cores()} usable{set_to}; {memory / 2**30:.0f} GiB of memory"
    yield Finding("processors", state, found, fix)


def shared_memory() -> Iterator[Finding]:
    """Room for the batches that loader processes hand over."""
    free = machine.free_shared_memory()
    if free is None:
        yield Finding("/dev/shm", "note", "there is none", "hardware.loader_workers=0 works without it")
    elif free < _LITTLE_SHARED:
        fix = "start the container with a larger one (--shm-size=8g), or use hardware.loader_workers=0"
        yield Finding("/dev/shm", "note", f"{free / 2**20:.0f} MiB free", fix)
    else:
        yield Finding("/dev/shm", "ok", f"{free / 2**30:.1f} GiB free")


def disk(store: Path) -> Iterator[Finding]:
    """Space and speed of the disk that the frame store is on."""
    folder = next(each for each in (store.absolute(), *store.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(folder).free
    written, read = _speed(folder)
    found = f"{folder}: {free / 2**30:.0f} GiB free, writes {written / 1e6:.0f} MB/s, reads {read / 1e6:.0f} MB/s"
    if free < _LITTLE_DISK:
        yield Finding("disk", "note", found, "an hour of video at 1 frame a second takes about 0.1 GiB in the store")
    elif min(written, read) < _SLOW_DISK:
        yield Finding("disk", "note", found, "put data.store on a faster disk: training reads it all the time")
    else:
        yield Finding("disk", "ok", found)


def _speed(folder: Path) -> tuple[float, float]:
    """Bytes a second written to the disk, and read back from it and not from memory."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(_TRIED_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - start
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        while file.read(1 << 20):
            pass
        read = time.perf_counter() - start
    return _TRIED_BYTES / written, _TRIED_BYTES / read


def data(words: Sequence[str]) -> Iterator[Finding]:
    """A dataset against its card: what `surgdino verify` would report, counted."""
    from surgdino.cli.compose import compose
    from surgdino.config import plain
    from surgdino.verify.verb import findings

    card, manifest, _, _ = findings(plain(compose("verify", words)))
    errors, problems = len(manifest.errors), len(manifest.problems)
    counts = (
        f"{counted(len(manifest.videos), 'video')}, {counted(errors, 'error')}, {counted(problems - errors, 'warning')}"
    )
    fix = f"surgdino verify {' '.join(words)} lists them" if problems else ""
    yield Finding("data", "fault" if errors else "note" if problems else "ok", f"{card.name}: {counts}", fix)


def _version(name: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(name)
    return None


LOOKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Python": python,
    "packages": packages,
    "torch": torchvision,
    "GPU": gpus,
    "decoders": decoders,
    "processors": processors,
    "/dev/shm": shared_memory,
}
