"""Damaged and forged model files: each must be rejected, quickly and with little memory."""

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite.timing import resident
from ehrmeta.errors import AtypicalWarning, BundleError
from ehrmeta.loading import load
from ehrmeta.persistence import read_bundle, write_bundle

Random = np.random.Generator
_PREFIX = 8
_FORGED: tuple[Any, ...] = (None, -1, 2**62, 1e308, "", "../x", [], {}, [[]], True)
_FORGED += ({"class": "eval", "params": {}},)


def _flip_bits(content: bytearray, random: Random) -> bytes:
    for at in random.integers(0, len(content), random.integers(1, 9)):
        content[at] ^= 1 << int(random.integers(8))
    return bytes(content)


def _truncate(content: bytearray, random: Random) -> bytes:
    return bytes(content[: random.integers(len(content))])


def _zero_a_block(content: bytearray, random: Random) -> bytes:
    start = int(random.integers(len(content)))
    block = content[start : start + 512]
    content[start : start + 512] = bytes(1 - (byte > 0) for byte in block)  # changes every byte
    return bytes(content)


def _insert_bytes(content: bytearray, random: Random) -> bytes:
    at = int(random.integers(len(content)))
    content[at:at] = random.bytes(int(random.integers(1, 64)))
    return bytes(content)


def _announce_a_huge_header(content: bytearray, random: Random) -> bytes:
    content[:_PREFIX] = int(random.integers(2**24, 2**62)).to_bytes(_PREFIX, "little")
    return bytes(content)


def _swap_tensors(content: bytearray, random: Random) -> bytes:
    """Exchange the data of two tensors of equal size and different content."""
    header = _header(content)
    start = _PREFIX + int.from_bytes(content[:_PREFIX], "little")
    places = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    places = [(start + low, start + high) for low, high in places]
    pairs = [
        (one, other)
        for one in places
        for other in places
        if one < other
        and one[1] - one[0] == other[1] - other[0]
        and content[slice(*one)] != content[slice(*other)]
    ]
    one, other = pairs[random.integers(len(pairs))]
    content[slice(*one)], content[slice(*other)] = content[slice(*other)], content[slice(*one)]
    return bytes(content)


def _lie_about_a_tensor(content: bytearray, random: Random) -> bytes:
    """Give one tensor another shape, type or place."""
    header = _header(content)
    name = random.choice([name for name in header if name != "__metadata__"])
    other = "F32" if header[name]["dtype"] == "F64" else "F64"
    lies = {"shape": [2**40], "dtype": other, "data_offsets": [0, 2**50]}
    key = str(random.choice(list(lies)))
    header[name][key] = lies[key]
    text = json.dumps(header).encode()
    old = int.from_bytes(content[:_PREFIX], "little")
    return len(text).to_bytes(_PREFIX, "little") + text + bytes(content[_PREFIX + old :])


DAMAGES: dict[str, Callable[[bytearray, Random], bytes]] = {
    "flipped bits": _flip_bits,
    "cut short": _truncate,
    "a block overwritten": _zero_a_block,
    "bytes inserted": _insert_bytes,
    "a huge header": _announce_a_huge_header,
    "tensors exchanged": _swap_tensors,
    "a tensor misdescribed": _lie_about_a_tensor,
}


def refuse_damaged_files(
    saves: Sequence[Callable[[Path], object]], n_files: int, seed: int = 0
) -> tuple[int, float, float]:
    """Load damaged copies of files, and copies with forged settings and valid digests.

    Parameters
    ----------
    saves : sequence of callable
        Each writes one valid file of a model or of adapted patients.
    n_files : int
        Total number of damaged files.

    Returns
    -------
    failures : int
        Damaged files that were loaded, or raised another error than BundleError. Forged settings
        may be harmless, so loading them is no failure.
    slowest : float
        Seconds of the slowest file.
    growth : float
        Growth of the process's memory in GiB.
    """
    random = np.random.default_rng(seed)
    failures, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged.ehrmeta")
        sound = [Path(folder, f"sound-{i}.ehrmeta") for i in range(len(saves))]
        for save, target in zip(saves, sound, strict=True):
            save(target)
        before = resident(peak=True)
        for harmless_loads, write in _attacks(sound, path, n_files, random):
            write()
            started = time.perf_counter()
            try:
                with warnings.catch_warnings(action="ignore", category=AtypicalWarning):
                    load(path)
                failures += not harmless_loads
            except BundleError:
                pass
            except Exception:
                failures += 1
            slowest = max(slowest, time.perf_counter() - started)
        return failures, slowest, max(0.0, resident(peak=True) - before)


def _attacks(
    sound: Sequence[Path], path: Path, n_files: int, random: Random
) -> Iterator[tuple[bool, Callable[[], object]]]:
    """Whether loading may succeed, and a function that writes the file."""
    kinds = list(DAMAGES.values())
    read = [(file.read_bytes(), *read_bundle(file)) for file in sound]
    for i in range(n_files):
        kind = i // len(read) % (len(kinds) + 1)
        content, tensors, metadata = read[i % len(read)]
        if kind < len(kinds):
            damaged = kinds[kind](bytearray(content), random)
            yield damaged == content, lambda damaged=damaged: path.write_bytes(damaged)  # type: ignore[misc]
        else:
            forged = json.loads(json.dumps(metadata))
            forge_settings(forged, random)
            yield True, lambda t=tensors, f=forged: write_bundle(path, t, f)  # type: ignore[misc]


def forge_settings(settings: Any, random: Random) -> None:
    """Replace or delete a random value in nested settings."""
    while True:
        keys = list(settings) if isinstance(settings, dict) else list(range(len(settings)))
        key = keys[random.integers(len(keys))]
        nested = settings[key]
        if not (isinstance(nested, dict | list) and nested) or random.random() < 0.2:
            break
        settings = nested
    forged = _FORGED[random.integers(len(_FORGED))]
    if isinstance(settings, dict) and random.random() < 0.2:
        del settings[key]
    else:
        settings[key] = forged


def _header(content: bytearray) -> dict[str, Any]:
    length = int.from_bytes(content[:_PREFIX], "little")
    header: dict[str, Any] = json.loads(bytes(content[_PREFIX : _PREFIX + length]))
    return header
