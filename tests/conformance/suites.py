"""The upstream suites that judge JCache: where each comes from, and how it is run."""

from dataclasses import dataclass

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True, slots=True)
class Suite:
    """One upstream suite.

    Attributes:
        name: What it is called here.
        distribution: The distribution on the package index whose tests these are; the installed version is taken.
        source: Whether the tests come from its source distribution; else they are installed with it.
        arguments: pytest's, relative to the unpacked source distribution or to the installed package.
        quick: More arguments that make the part that runs in `make test`; None where it does not run there.
        timeout_s: How long one run may take.
        why: What is left out, and for what reason.
    """

    name: str
    distribution: str
    source: bool
    arguments: tuple[str, ...]
    quick: tuple[str, ...] | None = None
    timeout_s: float = 1800.0
    why: str = ""


def any_of(*names: str) -> str:
    """Return what selects the tests that have one of these in their names."""
    return " or ".join(names)


# Of each kind of behaviour a few tests: whole, the suites over S3 take many minutes, most of it in their servers.
S3FS = (
    *("test_info", "exists_versioned", "repeat_exists", "test_isfile", "ls_touch", "test_modified", "read_small"),
    *("default_cache_type[bytes]", "cat_ranges", "cat_missing", "test_async_s3", "async_stream", "test_rmdir"),
    *("test_rm_file", "bulk_delete", "test_move", "cp_two_files", "cache_after_copy", "test_merge", "test_append"),
    *("write_small_with_acl", "test_touch", "put_single", "test_invalidate_cache", "errors_cause", "changed_during"),
    *("setxattr_in_write", "rm_recursive_folder", "pipe_exclusive"),
)
ZARR = (
    *("None-c/0]", "byte_range1-c/0]", "get_many", "set_many", "test_delete", "list_dir", "getsize_prefix", "from_uri"),
)
UPATH = ("exists", "is_file", "test_stat", "read_", "write_", "rename", "unlink", "rmdir", "fsspec_compat", "info")

SUITES = (
    Suite(
        name="s3fs",
        distribution="s3fs",
        source=True,
        arguments=("s3fs/tests",),
        quick=("-k", any_of(*S3FS)),
    ),
    Suite(
        name="zarr",
        distribution="zarr",
        source=True,
        arguments=("tests/test_store/test_fsspec.py", "tests/test_store/test_wrapper.py"),
        quick=("-k", f"open_fsmap_s3 or (FsspecStoreS3 and ({any_of(*ZARR)}))"),
    ),
    Suite(
        name="fsspec-xrootd",
        distribution="fsspec_xrootd",
        source=True,
        arguments=("tests",),
        quick=(),
    ),
    Suite(
        name="universal_pathlib",
        distribution="universal_pathlib",
        source=True,
        arguments=("upath/tests",),
        quick=("-k", f"http or (UPathS3 and ({any_of(*UPATH)}))"),
    ),
    Suite(name="dask.bytes", distribution="dask", source=False, arguments=("dask/bytes/tests",), quick=()),
    Suite(
        name="dask.dataframe io",
        distribution="dask",
        source=False,
        arguments=("dask/dataframe/io/tests",),
    ),
    Suite(
        name="pandas io",
        distribution="pandas",
        source=False,
        arguments=(
            "pandas/tests/io/test_fsspec.py",
            "pandas/tests/io/test_s3.py",
            "pandas/tests/io/test_gcs.py",
            "pandas/tests/io/test_http_headers.py",
            "pandas/tests/io/test_parquet.py",
            "pandas/tests/io/test_common.py",
        ),
    ),
    Suite(name="pyarrow", distribution="pyarrow", source=False, arguments=("pyarrow/tests/test_fs.py",)),
    Suite(
        name="xarray",
        distribution="xarray",
        source=False,
        arguments=("xarray/tests/test_backends.py", "-k", "fsspec or s3 or http or zarr"),
    ),
)
