"""From what a user writes to a store: `s3://bucket/prefix` or the path of a folder."""

from pathlib import Path

from rl_hooks.stores.folder import FolderStore
from rl_hooks.stores.store import Store, StoreError

S3 = "s3://"


def is_s3(place: str) -> bool:
    return place.startswith(S3)


def open_store(place: str, endpoint_url: str | None = None) -> Store:
    """The store at a place. Raises StoreError when it cannot be one, whatever happens there later."""
    if not is_s3(place):
        if "://" in place:
            raise StoreError(f"{place}: unknown kind of store; write s3://bucket/prefix or the path of a folder")
        if endpoint_url is not None:
            raise StoreError(
                f"{place}: a folder has no endpoint; leave --endpoint-url out, or write s3://bucket/prefix"
            )
        return FolderStore(Path(place))
    bucket, _, prefix = place.removeprefix(S3).partition("/")
    if not bucket:
        raise StoreError(f"{place}: no bucket is named; write s3://bucket/prefix")
    try:
        from rl_hooks.stores.s3 import S3Store  # here, because only who uses S3 has boto3
    except ModuleNotFoundError as error:
        raise StoreError(f"{place}: {error.name} is not installed; install it with: pip install '.[s3]'") from error
    return S3Store(bucket, prefix.strip("/"), endpoint_url)
