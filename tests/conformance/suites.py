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


SUITES = (
    Suite(
        name="s3fs",
        distribution="s3fs",
        source=True,
        arguments=("s3fs/tests",),
        quick=(
            "-k",
            " and ".join(
                f"not {slow}" for slow in ("xzarr", "list_versions_many", "async_close", "big_ls", "multipart")
            ),
        ),
    ),
    Suite(
        name="zarr",
        distribution="zarr",
        source=True,
        arguments=("tests/test_store/test_fsspec.py", "tests/test_store/test_wrapper.py"),
        quick=("-k", "not stateful"),
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
        quick=("-k", "s3 or http or S3 or HTTP"),
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
