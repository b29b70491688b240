"""One model file: named tensors and JSON in one safetensors file, checked before use.

The text under ``__metadata__`` of the file's header is one canonical JSON object, the manifest::

    {"format_version": 1,
     "metadata": {...},                                   what the caller saved
     "sha256": "...",                                     of the manifest without this line
     "tensors": {name: {"dtype": "F32", "shape": [2, 3], "sha256": "..."}}}

so that every bit that is given back has been compared with a digest. The digests find damage, not
forgery: whoever can rewrite the file can rewrite them too. Nothing in the file is ever executed.
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
_MALFORMED = (
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
    SafetensorError,
    TypeError,
    ValueError,
)
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
    """Write named tensors and their settings as one file, whole or not at all.

    The bytes go to a temporary file in the same folder, to the disk, and only then to `path`; so an
    older file at `path` survives a full disk, an error and a power cut.

    Parameters
    ----------
    path : str or path-like
        The file to write. An existing file is replaced and keeps its permissions.
    tensors : mapping of str to torch.Tensor
        Of any shape (empty and 0-d too), device and layout in memory; boolean, integer or floating.
        Floating tensors must be finite.
    metadata : mapping
        What JSON gives back unchanged: strings, finite numbers, booleans, None, lists (no tuples)
        and dicts with text keys, whose order is not kept.

    Raises
    ------
    BundleError
        If the tensors or the metadata cannot be stored exactly, or the file cannot be written.

    See Also
    --------
    read_bundle : Read the file again.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "model.ehrmeta"
    >>> write_bundle(path, {"beta": torch.tensor([1.0, 0.1])}, {"unit": "mg/dL"})
    >>> read_bundle(path)
    ({'beta': tensor([1.0000, 0.1000])}, {'unit': 'mg/dL'})
    """
    with _named("write", path, "Nothing there was changed."):
        if len(tensors) > MAX_TENSORS:
            raise BundleError(f"{len(tensors)} tensors are more than a file holds ({MAX_TENSORS}).")
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
    """Read and verify a file of `write_bundle`.

    Parameters
    ----------
    path : str or path-like
        The file to read.

    Returns
    -------
    tensors : dict of str to torch.Tensor
        On the CPU, bit for bit as they were written, in the order of their names.
    metadata : dict
        As it was written.

    Raises
    ------
    BundleError
        If the file is missing, is no model file, was cut short or altered, comes from a newer
        ehrmeta, or holds non-finite numbers.

    See Also
    --------
    write_bundle : Write such a file; an example of both.
    """
    with _named("read", path, "Check the path, or copy or save the file again."), _well_formed():
        _check_regular(Path(path))
        with Path(path).open("rb") as handle:
            prefix = handle.read(_PREFIX_BYTES)
            length = _header_length(prefix)
            header = handle.read(length)
            if len(header) < length:
                raise BundleError("it was cut short within its header.")
            manifest, n_bytes = _parse(header)
            data = handle.read()
        if len(data) != n_bytes:
            raise BundleError(f"it was cut short or altered: {len(data)} of {n_bytes} data bytes.")
        tensors = _load(prefix + header + data, manifest["tensors"])
        return tensors, dict(manifest["metadata"])


@contextmanager
def _named(doing: str, path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Say in every error what was being done to which file."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"cannot {doing} {os.fspath(path)!r}:", *error.args, remedy) from error
    except OSError as error:
        reason = error.strerror or error
        raise BundleError(f"cannot {doing} {os.fspath(path)!r}: {reason}. {remedy}") from error


@contextmanager
def _well_formed() -> Iterator[None]:
    """Turn whatever stumbles over a foreign or damaged file into one error."""
    try:
        yield
    except BundleError:
        raise
    except _MALFORMED as error:
        raise BundleError("it is no ehrmeta model file, or it is damaged.") from error


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise BundleError("it is not a regular file.")


def _check_storable(name: str, tensor: torch.Tensor) -> None:
    if not (isinstance(name, str) and name.isprintable() and name not in ("", "__metadata__")):
        raise BundleError(f"{name!r} is no name for a tensor; use printable text.")
    if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise BundleError(
            f"tensor {name!r} is {tensor.dtype}, {tensor.layout}; a file holds dense {kinds}."
        )
    _check_finite(name, tensor)


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    n_bad = int((~torch.isfinite(tensor)).sum())
    if n_bad:
        raise BundleError(
            f"tensor {name!r} holds {n_bad} NaN or infinite numbers of {tensor.numel()}."
        )


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata if JSON gives every entry back unchanged."""
    for key, value in metadata.items():
        try:
            unchanged = isinstance(key, str) and json.loads(_canonical(value)) == value
        except (TypeError, ValueError, RecursionError):
            unchanged = False
        if not unchanged:
            raise BundleError(
                f"metadata[{key!r}] would not come back from JSON as it is; "
                "use finite numbers, text, lists (no tuples) and dicts with text keys."
            )
    return dict(metadata)


def _canonical(value: Any) -> bytes:
    """Return the one JSON text of a value, in ASCII."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _describe(tensor: torch.Tensor) -> dict[str, Any]:
    raw = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    return {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "sha256": _digest(raw)}


def _header_length(prefix: bytes) -> int:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _PREFIX_BYTES:
        raise BundleError(f"{len(prefix)} bytes are no ehrmeta model file.")
    if length > MAX_HEADER_BYTES:
        raise BundleError(
            f"this is no ehrmeta model file: its header would be above the limit of "
            f"{MAX_HEADER_BYTES} bytes."
        )
    return length


def _parse(header: bytes) -> tuple[dict[str, Any], int]:
    """Return the verified manifest and the number of data bytes that must follow the header."""
    entries = json.loads(header)
    manifest = json.loads(entries.pop("__metadata__")[_MANIFEST])
    if manifest["format_version"] > FORMAT_VERSION:
        raise BundleError(
            f"its format {manifest['format_version']} is newer than {FORMAT_VERSION}, the newest "
            "known here; upgrade ehrmeta."
        )
    if manifest.pop("sha256") != _digest(_canonical(manifest)):
        raise BundleError("it was altered: its settings do not match their SHA-256.")
    if len(entries) > MAX_TENSORS:
        raise BundleError(f"{len(entries)} tensors are above the limit of {MAX_TENSORS}.")
    shapes = {name: (entry["dtype"], entry["shape"]) for name, entry in entries.items()}
    described = manifest["tensors"]
    if shapes != {name: (item["dtype"], item["shape"]) for name, item in described.items()}:
        raise BundleError("it was altered: its tensors are not those of its settings.")
    return manifest, max((entry["data_offsets"][1] for entry in entries.values()), default=0)


def _load(content: bytes, described: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a file whose manifest is verified."""
    tensors = load(content)
    for name, tensor in tensors.items():
        if _describe(tensor) != described[name]:
            raise BundleError(f"it was altered: tensor {name!r} does not match its SHA-256.")
        _check_finite(name, tensor)
    return {name: tensors[name] for name in described}


def _replace(target: Path, content: bytes) -> None:
    """Put the bytes at `target`, so that there is always either the old file or the new one."""
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
    # The new file is complete and in place. Not every system can sync a folder, and where it fails
    # a power cut leaves the old file or the new one, both whole.
    with suppress(OSError):
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
