import errno
import hashlib
import json
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import save

from ehrmeta.errors import BundleError
from ehrmeta.persistence import bundle, read_bundle, write_bundle

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
TENSORS = {
    "beta": torch.tensor([1.5, -0.0, 1e-40]),
    "codes": torch.tensor([[1, 2], [3, 4]]),
    "empty": torch.zeros((0, 3), dtype=torch.float64),
    "flag": torch.tensor(True),
    "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
}
METADATA = {"unit": "mg/dL", "encoder": {"levels": ["é", None, "\ud800"], "scale": 0.1}}

names = st.text(min_size=1).filter(lambda text: text.isprintable() and text != "__metadata__")
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(
        dtype,
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements=(
            {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None
        ),
    )
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and raw(left[name]) == raw(right[name])
        for name in left
    )


def raw(tensor: torch.Tensor) -> bytes:
    flat = tensor.reshape(-1).contiguous()
    return flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def forged(tensors: dict[str, torch.Tensor], /, **changes: Any) -> bytes:
    """Return a file whose manifest is changed, with a digest that fits the change."""
    manifest = {
        "format_version": 1,
        "metadata": {},
        "tensors": {name: bundle._describe(tensor) for name, tensor in tensors.items()},
    } | changes
    manifest["sha256"] = hashlib.sha256(bundle._canonical(manifest)).hexdigest()
    return save(tensors, {"ehrmeta": json.dumps(manifest)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a small valid file."""
    path = tmp_path / "model.ehrmeta"
    write_bundle(path, TENSORS, METADATA)
    return path


@given(
    tensors=st.dictionaries(names, arrays, max_size=4),
    metadata=st.dictionaries(st.text(), json_values, max_size=4),
)
def test_what_is_written_is_read_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: dict[str, np.ndarray],
    metadata: dict[str, Any],
) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.ehrmeta"
    written = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    write_bundle(path, written, metadata)
    read, read_metadata = read_bundle(path)
    assert same_bits(read, written)
    assert read_metadata == metadata
    assert list(read) == sorted(written)


def test_memory_layout_and_gradients_do_not_matter(path: Path) -> None:
    base = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    tensors = {
        "whole": base,
        "same memory": base[1:],
        "transposed": base.T,
        "expanded": base[:1].expand(5, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_bundle(path, tensors, {})
    read, _ = read_bundle(path)
    assert same_bits(read, dict(sorted((name, t.detach()) for name, t in tensors.items())))
    assert not any(tensor.requires_grad for tensor in read.values())


def test_the_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ehrmeta"
    write_bundle(other, dict(reversed(TENSORS.items())), dict(reversed(METADATA.items())))
    assert other.read_bytes() == path.read_bytes()


def test_a_tensor_that_is_read_may_be_written_to(path: Path) -> None:
    tensors, _ = read_bundle(path)
    tensors["beta"] += 1
    assert tensors["beta"][0] == 2.5


def test_every_truncation_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(BundleError, match=r"model\.ehrmeta"):
            read_bundle(path)


def test_no_altered_byte_changes_what_is_read(path: Path) -> None:
    content = path.read_bytes()
    tensors, metadata = read_bundle(path)
    random = np.random.default_rng(0)
    everywhere = np.arange(len(content))
    n_read = 0
    for position in np.concatenate([everywhere, random.integers(len(content), size=600)]):
        altered = bytearray(content)
        altered[position] ^= random.integers(1, 256)
        path.write_bytes(altered)
        with suppress(BundleError):
            read, read_metadata = read_bundle(path)
            n_read += 1
            assert same_bits(read, tensors)
            assert read_metadata == metadata
    # One blank for another where they pad the header, one case for another in an escaped letter.
    assert n_read <= 8


def test_bytes_after_the_end_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="truncated or altered"):
        read_bundle(path)


def test_a_file_with_holes_is_refused_before_its_data_are_read(path: Path) -> None:
    os.truncate(path, 3 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BundleError, match="truncated or altered"):
        read_bundle(path)
    shape, n_bytes = [2**28], 2**30
    described = {"z": {"dtype": "F32", "shape": shape, "sha256": "0"}}
    manifest: dict[str, Any] = {"format_version": 1, "metadata": {}, "tensors": described}
    manifest["sha256"] = bundle._digest(bundle._canonical(manifest))
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, n_bytes]}
    header = json.dumps({"__metadata__": {"ehrmeta": json.dumps(manifest)}, "z": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + n_bytes)
    with pytest.raises(BundleError, match="most of its bytes were never written"):
        read_bundle(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_key_that_occurs_twice_is_refused(path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    twice = header[:-1] + b',"flag":' + json.dumps(json.loads(header)["flag"]).encode() + b"}"
    path.write_bytes(len(twice).to_bytes(8, "little") + twice + content[8 + length :])
    with pytest.raises(BundleError, match="a key occurs twice"):
        read_bundle(path)


@pytest.mark.parametrize("version", [0, True, 1.0])
def test_a_version_is_a_number_from_one_on(path: Path, version: Any) -> None:
    path.write_bytes(forged(TENSORS, format_version=version))
    with pytest.raises(BundleError, match="no version"):
        read_bundle(path)


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_permissions_are_those_asked_for(path: Path, mode: int) -> None:
    write_bundle(path, TENSORS, METADATA, mode=mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*nothing\.ehrmeta.*No such file"):
        read_bundle(tmp_path / "nothing.ehrmeta")


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a regular file"):
        read_bundle(tmp_path)
    with pytest.raises(BundleError, match="not a regular file"):
        write_bundle(tmp_path, TENSORS, METADATA)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"id,days\n1,2\n",
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x04\0\0\0\0\0\0\0null",
        b"\x02\0\0\0\0\0\0\0\xff\xfe",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        save({"weight": torch.ones(2)}),
        save({"weight": torch.ones(2)}, {"ehrmeta": "[]"}),
        save({"weight": torch.ones(2)}, {"ehrmeta": '{"format_version": NaN}'}),
    ],
    ids=[
        "empty", "csv", "no metadata", "list", "null", "no text", "deep", "another model",
        "no manifest", "no version",
    ],
)  # fmt: skip
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not an ehrmeta model file"):
        read_bundle(path)


def test_a_pickle_is_refused_and_not_run(path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(BundleError, match="not an ehrmeta model file"):
        read_bundle(path)


def test_a_newer_format_asks_for_an_upgrade(path: Path) -> None:
    path.write_bytes(forged(TENSORS, format_version=2))
    with pytest.raises(BundleError, match=r"format 2 is newer than 1.*upgrade ehrmeta"):
        read_bundle(path)


def test_a_header_above_the_limit_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(bundle, "MAX_HEADER_BYTES", 100)
    with pytest.raises(BundleError, match="above the limit of 100"):
        read_bundle(path)
    with pytest.raises(BundleError, match="above the limit of 100"):
        write_bundle(path, TENSORS, METADATA)
    assert path.read_bytes() == before


def test_more_tensors_than_the_limit_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_TENSORS", 3)
    with pytest.raises(BundleError, match="5 tensors are above the limit of 3"):
        read_bundle(path)
    with pytest.raises(BundleError, match="5 tensors are above the limit"):
        write_bundle(path, TENSORS, METADATA)


def test_a_tensor_that_is_not_the_described_one_is_refused(path: Path) -> None:
    described = {"beta": bundle._describe(torch.ones(3))}
    path.write_bytes(forged({"beta": torch.zeros(3)}, tensors=described))
    with pytest.raises(BundleError, match="tensor 'beta' does not match its SHA-256"):
        read_bundle(path)
    path.write_bytes(forged({"beta": torch.zeros(2)}, tensors=described))
    with pytest.raises(BundleError, match="do not match its manifest"):
        read_bundle(path)


@pytest.mark.parametrize(
    "changes",
    [{"tensors": None}, {"tensors": {"z": []}}, {"metadata": [[]]}, {"format_version": "1"}],
    ids=["no tensors", "no description", "no metadata", "text version"],
)
def test_a_manifest_of_another_shape_is_refused(path: Path, changes: dict[str, Any]) -> None:
    path.write_bytes(forged({"z": torch.ones(1)}, **changes))
    with pytest.raises(BundleError, match="it is damaged"):
        read_bundle(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_numbers_are_refused(path: Path, value: float) -> None:
    tensors = {"beta": torch.tensor([0.0, value])}
    with pytest.raises(BundleError, match="'beta' holds NaN or infinite values, 1 of 2"):
        write_bundle(path, tensors, {})
    assert same_bits(read_bundle(path)[0], TENSORS)
    path.write_bytes(forged(tensors))
    with pytest.raises(BundleError, match="'beta' holds NaN or infinite values, 1 of 2"):
        read_bundle(path)


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: 2}, float("nan"), float("inf"), np.zeros(2), object()],
    ids=["tuple", "number as key", "nan", "infinite", "array", "object"],
)
def test_metadata_that_json_would_change_is_refused(path: Path, value: Any) -> None:
    with pytest.raises(BundleError, match=r"metadata\['odd'\] does not survive"):
        write_bundle(path, TENSORS, {"odd": value})


@pytest.mark.parametrize("name", ["", "__metadata__", "a\nb", "\ud800"])
def test_odd_tensor_names_are_refused(path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="cannot name a tensor"):
        write_bundle(path, {name: torch.ones(1)}, {})


def test_kinds_of_tensor_that_cannot_be_stored_are_named(path: Path) -> None:
    with pytest.raises(BundleError, match=r"'z' has dtype torch\.complex64"):
        write_bundle(path, {"z": torch.ones(1, dtype=torch.complex64)}, {})
    with pytest.raises(
        BundleError, match=r"'z' has dtype torch\.float32 and layout torch\.sparse_coo"
    ):
        write_bundle(path, {"z": torch.ones(1).to_sparse()}, {})


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_an_error_on_the_way_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = path.read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(BundleError, match=r"model\.ehrmeta.*No space left on device"):
        write_bundle(path, {"beta": torch.zeros(9)}, {})
    assert path.read_bytes() == before
    assert files_in(path.parent) == [path.name]


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_stops_half_way_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    with (
        largest_file(50_000),
        pytest.raises(BundleError, match=r"cannot write .*model\.ehrmeta.*File too large"),
    ):
        write_bundle(path, {"beta": torch.zeros(100_000)}, {})
    assert path.read_bytes() == before
    assert files_in(path.parent) == [path.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 KiB, where the user may."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "model.ehrmeta"
    write_bundle(path, TENSORS, METADATA)
    with pytest.raises(BundleError, match=r"cannot write .*model\.ehrmeta.*No space left"):
        write_bundle(path, {"beta": torch.zeros(100_000)}, {})
    tensors, metadata = read_bundle(path)
    assert same_bits(tensors, TENSORS)
    assert metadata == METADATA
    assert files_in(small_disk) == [path.name]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot write .*model\.ehrmeta.*No such file"):
        write_bundle(tmp_path / "nowhere" / "model.ehrmeta", TENSORS, METADATA)
    assert files_in(tmp_path) == []


def test_a_folder_that_cannot_be_synced_is_no_failure(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_bundle(path, {"beta": torch.ones(1)}, {})
    assert read_bundle(path)[0]["beta"] == 1


def test_permissions_and_links_are_kept(path: Path, tmp_path: Path) -> None:
    path.chmod(0o600)
    link = tmp_path / "link.ehrmeta"
    link.symlink_to(path)
    write_bundle(link, {"beta": torch.ones(1)}, {})
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_bundle(path)[0]["beta"] == 1


def with_entry(path: Path, shape: list[Any], offsets: list[int], data: bytes) -> None:
    """Write a file of one tensor whose header says what is given, with digests that fit."""
    digest = hashlib.sha256(data).hexdigest()
    described = {"z": {"dtype": "F32", "shape": shape, "sha256": digest}}
    manifest: dict[str, Any] = {"format_version": 1, "metadata": {}, "tensors": described}
    manifest["sha256"] = bundle._digest(bundle._canonical(manifest))
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"__metadata__": {"ehrmeta": json.dumps(manifest)}, "z": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def test_shapes_are_whole_numbers_and_data_lie_where_they_imply(path: Path) -> None:
    data = np.arange(2, dtype=np.float32).tobytes()
    with_entry(path, [2], [0, 8], data)
    assert read_bundle(path)[0]["z"].tolist() == [0.0, 1.0]
    for shape in ([2.0], [-2, -1], [True, 2]):
        with_entry(path, shape, [0, 8], data)
        with pytest.raises(BundleError, match="'z' is not where its shape implies"):
            read_bundle(path)
    for offsets in ([0, 4], [4, 12], [0, 12]):
        with_entry(path, [2], offsets, data)
        with pytest.raises(BundleError, match="'z' is not where its shape implies"):
            read_bundle(path)


def test_limits_themselves_are_allowed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    length = int.from_bytes(path.read_bytes()[:8], "little")
    monkeypatch.setattr(bundle, "MAX_HEADER_BYTES", length)
    monkeypatch.setattr(bundle, "MAX_TENSORS", len(TENSORS))
    assert same_bits(read_bundle(path)[0], TENSORS)
    write_bundle(path, TENSORS, METADATA)
    monkeypatch.setattr(bundle, "MAX_HEADER_BYTES", length - 1)
    with pytest.raises(BundleError, match="above the limit"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("n_bytes", "share", "is_refused"),
    [(2**27, 1 / 9, True), (2**27, 1 / 8, False), (2**27, 1.0, False), (2**26, 0.0, False)],
)
def test_a_file_is_a_hole_if_less_than_an_eighth_of_a_large_one_is_stored(
    n_bytes: int, share: float, is_refused: bool
) -> None:
    places = {"z": (torch.float32, [n_bytes // 4], n_bytes)}
    status = SimpleNamespace(st_size=100 + n_bytes, st_blocks=int(share * n_bytes / 512))
    if is_refused:
        with pytest.raises(BundleError, match="never written"):
            bundle._check_size(status, 100, places)
    else:
        bundle._check_size(status, 100, places)
    bundle._check_size(SimpleNamespace(st_size=100 + n_bytes), 100, places)  # unknown on Windows


def test_kinds_of_numbers_and_layouts_are_those_of_the_format(path: Path) -> None:
    tensors = {str(dtype): torch.ones(2, dtype=dtype) for dtype in bundle._DTYPES}
    write_bundle(path, tensors, {})
    assert same_bits(read_bundle(path)[0], dict(sorted(tensors.items())))
    assert (bundle.FORMAT_VERSION, bundle.MAX_HEADER_BYTES) == (1, 4 * 2**20)
    assert bundle.MAX_TENSORS == 10_000
