"""Model file format: named tensors and JSON metadata in one safetensors file, with digests.

The text under ``__metadata__`` of the file's header is one canonical JSON object, the manifest::

    {"format_version": 1,
     "metadata": {...},                                   from the caller
     "sha256": "...",                                     of the manifest without this line
     "tensors": {name: {"dtype": "F32", "shape": [2, 3], "sha256": "..."}}}

Everything that is read is compared with a digest. The digests detect damage, not forgery: whoever
can rewrite the file can rewrite them too. Sizes are therefore checked before data are read, and
nothing in the file is ever executed.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from ehrmeta.errors import BundleError
from ehrmeta.whole_file import replace_file

FORMAT_VERSION = 1
MAX_HEADER_BYTES = 2**22
MAX_TENSORS = 10_000

_MANIFEST = "ehrmeta"  # the one key under __metadata__
_PREFIX_BYTES = 8  # a safetensors file starts with the length of its header
_MALFORMED = (
    AttributeError,
    LookupError,
    OverflowError,
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
_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}
_LARGE = 2**26  # bytes from which a file with holes is refused
Place: TypeAlias = tuple[torch.dtype, list[int], int]  # type, shape and number of bytes of a tensor


def write_bundle(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, Any],
    *,
    mode: int | None = None,
) -> None:
    """Write named tensors and JSON metadata to one file, atomically.

    The bytes are written to a temporary file in the same folder, synced, and renamed to `path`, so
    an older file at `path` survives a full disk, an error and a power cut.

    Parameters
    ----------
    path : str or path-like
        The file to write. An existing file is replaced.
    tensors : mapping of str to torch.Tensor
        Boolean, integer or finite floating tensors of any shape, device and memory layout.
    metadata : mapping
        Values that survive a JSON round trip: strings, finite numbers, booleans, None, lists (no
        tuples) and dicts with text keys, whose order may change.
    mode : int, optional
        Permissions of the file, such as ``0o600``; by default those of an existing file, or those
        of any new file.

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
        replace_file(path, lambda temporary: temporary.write_bytes(content), mode)


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
            length = _header_length(handle.read(_PREFIX_BYTES))
            header = handle.read(length)
            if len(header) < length:
                raise BundleError("it was truncated within its header.")
            manifest, places = _parse(header)
            _check_size(os.fstat(handle.fileno()), _PREFIX_BYTES + length, places)
            tensors = {name: _read_tensor(handle, name, *place) for name, place in places.items()}
        for name, tensor in tensors.items():
            if _describe(tensor) != manifest["tensors"][name]:
                raise BundleError(f"it was altered: tensor {name!r} does not match its SHA-256.")
            _check_finite(name, tensor)
        return {name: tensors[name] for name in manifest["tensors"]}, dict(manifest["metadata"])


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


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each of whose keys occurs once: readers would differ in which they take."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise BundleError("it was altered: a key occurs twice in its header.")
    return entries


def _parse(header: bytes) -> tuple[dict[str, Any], dict[str, Place]]:
    """The verified manifest, and the places of the tensors in the order of their bytes."""
    entries = json.loads(header, object_pairs_hook=_unrepeated)
    manifest = json.loads(entries.pop("__metadata__")[_MANIFEST], object_pairs_hook=_unrepeated)
    version = manifest["format_version"]
    if type(version) is not int or version < 1:
        raise BundleError("it is not an ehrmeta model file, or it is damaged: it has no version.")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"its format {version} is newer than {FORMAT_VERSION}, the latest format that this "
            "version reads; upgrade ehrmeta."
        )
    if manifest.pop("sha256") != _digest(_canonical(manifest)):
        raise BundleError("it was altered: its manifest does not match its SHA-256.")
    if len(entries) > MAX_TENSORS:
        raise BundleError(f"{len(entries)} tensors are above the limit of {MAX_TENSORS}.")
    shapes = {name: (entry["dtype"], entry["shape"]) for name, entry in entries.items()}
    described = manifest["tensors"]
    if shapes != {name: (item["dtype"], item["shape"]) for name, item in described.items()}:
        raise BundleError("it was altered: its tensors do not match its manifest.")
    by_place = sorted(entries, key=lambda name: entries[name]["data_offsets"])
    places, end = {}, 0
    for name in by_place:
        dtype, shape = _BY_NAME[entries[name]["dtype"]], entries[name]["shape"]
        n_bytes = math.prod(shape) * dtype.itemsize
        is_shape = all(type(side) is int and side >= 0 for side in shape)
        if not is_shape or entries[name]["data_offsets"] != [end, end + n_bytes]:
            raise BundleError(f"it was altered: tensor {name!r} is not where its shape implies.")
        places[name], end = (dtype, shape, n_bytes), end + n_bytes
    return manifest, places


def _check_size(status: os.stat_result, start: int, places: Mapping[str, Place]) -> None:
    """Raise if a file is not as long as its header implies, or if most of it is a hole."""
    n_bytes = sum(n_bytes for _, _, n_bytes in places.values())
    if status.st_size != start + n_bytes:
        raise BundleError(
            f"it was truncated or altered: it has {status.st_size - start:,} of {n_bytes:,} data "
            "bytes."
        )
    stored = 512 * getattr(status, "st_blocks", n_bytes)  # Windows does not say
    if n_bytes > _LARGE and stored < n_bytes // 8:
        raise BundleError("it was altered: most of its bytes were never written.")


def _read_tensor(
    handle: BinaryIO, name: str, dtype: torch.dtype, shape: list[int], n_bytes: int
) -> torch.Tensor:
    """The next tensor of a file."""
    raw = bytearray(handle.read(n_bytes))
    if len(raw) < n_bytes:
        raise BundleError(f"it was truncated within tensor {name!r}.")
    return (
        torch.frombuffer(raw, dtype=dtype).reshape(shape)
        if raw
        else torch.empty(shape, dtype=dtype)
    )
