"""Model file format: named tensors and JSON metadata in one safetensors file, with digests.

The text under ``__metadata__`` of the file's header is one canonical JSON object, the manifest::

    {"format_version": 1,
     "metadata": {...},                                   from the caller
     "sha256": "...",                                     of the manifest without this line
     "tensors": {name: {"dtype": "F32", "shape": [2, 3], "sha256": "..."}}}

Everything that is read is compared with a digest. The digests detect damage, not forgery: whoever
can rewrite the file can rewrite them too. Nothing in the file is ever executed.
"""

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ehrmeta.errors import BundleError

FORMAT_VERSION = 1
MAX_HEADER_BYTES = 2**24
MAX_TENSORS = 10_000

_MANIFEST = "ehrmeta"  # the one key under __metadata__
_PREFIX_BYTES = 8  # a safetensors file starts with the length of its header
_MALFORMED = (AttributeError, LookupError, RecursionError, SafetensorError, TypeError, ValueError)
_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def write_bundle(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write named tensors and JSON metadata to one file, atomically.

    The bytes are written to a temporary file in the same folder, synced, and renamed to `path`, so
    an older file at `path` survives a full disk, an error and a power cut.

    Parameters
    ----------
    path : str or path-like
        The file to write. An existing file is replaced and keeps its permissions.
    tensors : mapping of str to torch.Tensor
        Boolean, integer or finite floating tensors of any shape, device and memory layout.
    metadata : mapping
        Values that survive a JSON round trip: strings, finite numbers, booleans, None, lists (no
        tuples) and dicts with text keys, whose order may change.

    Raises
    ------
    BundleError
        The tensors or the metadata cannot be stored exactly, or the file cannot be written.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "model.ehrmeta"
    >>> write_bundle(path, {"beta": torch.tensor([1.0, 0.1])}, {"unit": "mg/dL"})
    >>> read_bundle(path)
    ({'beta': tensor([1.0000, 0.1000])}, {'unit': 'mg/dL'})
    """
    with _named("write", path, "An existing file is unchanged."):
        if len(tensors) > MAX_TENSORS:
            raise BundleError(f"{len(tensors)} tensors are above the limit of {MAX_TENSORS}.")
        for name, tensor in tensors.items():
            _check_storable(name, tensor)
        # clone: safetensors refuses tensors that share memory
        copies = {
            name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()
        }
        manifest: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "metadata": _plain(metadata),
            "tensors": {name: _describe(tensor) for name, tensor in copies.items()},
        }
        manifest["sha256"] = _digest(_canonical(manifest))
        content = save(copies, {_MANIFEST: _canonical(manifest).decode()})
        _header_length(content[:_PREFIX_BYTES])
        _replace(Path(os.path.realpath(path)), content)


def read_bundle(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read and verify a file that `write_bundle` wrote; see there for an example.

    Parameters
    ----------
    path : str or path-like
        The file to read.

    Returns
    -------
    tensors : dict of str to torch.Tensor
        On the CPU, bit for bit as written, sorted by name.
    metadata : dict

    Raises
    ------
    BundleError
        The file is missing, is not a model file, was truncated or altered, comes from a newer
        ehrmeta, or holds non-finite numbers.
    """
    with _named("read", path, "Check the path, or copy or save the file again."), _well_formed():
        _check_regular(Path(path))
        with Path(path).open("rb") as handle:
            prefix = handle.read(_PREFIX_BYTES)
            length = _header_length(prefix)
            header = handle.read(length)
            if len(header) < length:
                raise BundleError("it was truncated within its header.")
            manifest, n_bytes = _parse(header)
            data = handle.read()
        if len(data) != n_bytes:
            raise BundleError(
                f"it was truncated or altered: it has {len(data)} of {n_bytes} data bytes."
            )
        tensors = _load(prefix + header + data, manifest["tensors"])
        return tensors, dict(manifest["metadata"])


@contextmanager
def _named(doing: str, path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Name operation and file in every error."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"cannot {doing} {os.fspath(path)!r}:", *error.args, remedy) from error
    except OSError as error:
        reason = error.strerror or error
        raise BundleError(f"cannot {doing} {os.fspath(path)!r}: {reason}. {remedy}") from error


@contextmanager
def _well_formed() -> Iterator[None]:
    """Raise `BundleError` for any parsing error of a foreign or damaged file."""
    try:
        yield
    except BundleError:
        raise
    except _MALFORMED as error:
        raise BundleError("it is not an ehrmeta model file, or it is damaged.") from error


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise BundleError("it is not a regular file.")


def _check_storable(name: str, tensor: torch.Tensor) -> None:
    if not (isinstance(name, str) and name.isprintable() and name not in ("", "__metadata__")):
        raise BundleError(f"{name!r} cannot name a tensor; use printable text.")
    if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise BundleError(
            f"tensor {name!r} has dtype {tensor.dtype} and layout {tensor.layout}, but a file can "
            f"only hold dense tensors of {kinds}."
        )
    _check_finite(name, tensor)


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    n_bad = int((~torch.isfinite(tensor)).sum())
    if n_bad:
        raise BundleError(
            f"tensor {name!r} holds NaN or infinite values, {n_bad} of {tensor.numel()}."
        )


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata, if every entry survives a JSON round trip."""
    for key, value in metadata.items():
        try:
            unchanged = isinstance(key, str) and json.loads(_canonical(value)) == value
        except (TypeError, ValueError, RecursionError):
            unchanged = False
        if not unchanged:
            raise BundleError(
                f"metadata[{key!r}] does not survive a JSON round trip; "
                "use finite numbers, text, lists (no tuples) and dicts with text keys."
            )
    return dict(metadata)


def _canonical(value: Any) -> bytes:
    """Canonical JSON of a value, in ASCII."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _describe(tensor: torch.Tensor) -> dict[str, Any]:
    raw = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    return {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "sha256": _digest(raw)}


def _header_length(prefix: bytes) -> int:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _PREFIX_BYTES:
        raise BundleError(f"it is not an ehrmeta model file: it has only {len(prefix)} bytes.")
    if length > MAX_HEADER_BYTES:
        raise BundleError(
            "it is not an ehrmeta model file, or it is too large: its header is above the limit of "
            f"{MAX_HEADER_BYTES} bytes."
        )
    return length


def _parse(header: bytes) -> tuple[dict[str, Any], int]:
    """The verified manifest, and the number of data bytes after the header."""
    entries = json.loads(header)
    manifest = json.loads(entries.pop("__metadata__")[_MANIFEST])
    if manifest["format_version"] > FORMAT_VERSION:
        raise BundleError(
            f"its format {manifest['format_version']} is newer than {FORMAT_VERSION}, the latest "
            "format that this version reads; upgrade ehrmeta."
        )
    if manifest.pop("sha256") != _digest(_canonical(manifest)):
        raise BundleError("it was altered: its manifest does not match its SHA-256.")
    if len(entries) > MAX_TENSORS:
        raise BundleError(f"{len(entries)} tensors are above the limit of {MAX_TENSORS}.")
    shapes = {name: (entry["dtype"], entry["shape"]) for name, entry in entries.items()}
    described = manifest["tensors"]
    if shapes != {name: (item["dtype"], item["shape"]) for name, item in described.items()}:
        raise BundleError("it was altered: its tensors do not match its manifest.")
    return manifest, max((entry["data_offsets"][1] for entry in entries.values()), default=0)


def _load(content: bytes, described: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a file, verified against its manifest."""
    tensors = load(content)
    for name, tensor in tensors.items():
        if _describe(tensor) != described[name]:
            raise BundleError(f"it was altered: tensor {name!r} does not match its SHA-256.")
        _check_finite(name, tensor)
    return {name: tensors[name] for name in described}


def _replace(target: Path, content: bytes) -> None:
    """Write the bytes to `target` atomically."""
    _check_regular(target)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as handle:
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    # Not every system can sync a folder. Where it cannot, a power cut leaves either the old or the
    # new file, complete.
    with suppress(OSError):
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
