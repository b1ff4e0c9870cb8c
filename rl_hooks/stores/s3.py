"""A store in a bucket of S3, or of a server that speaks its protocol.

An object goes there with one `put_object`: atomic, and nothing is left behind when it is cut off, as parts of a
multipart upload would be. Its SHA-256 is in the object's metadata, because what a bucket calls ETag is a checksum only
sometimes. Credentials and region come from where boto3 looks for them.
"""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO

import boto3
import botocore.exceptions
from botocore.config import Config

from rl_hooks.stores.store import StoreAwayError, Stored, StoreError

SHA256 = "sha256"  # name of the metadata
CHUNK_BYTES = 1 << 20
CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 2},  # whoever ships tries again for as long as it takes
    # Content-MD5 is checked by every server; the newer checksums are framed in a way that older ones store as content.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.ProfileNotFound,
    botocore.exceptions.CredentialRetrievalError,
)
_PASSING = {
    "SlowDown",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "Throttling",
    "ServiceUnavailable",
    "OperationAborted",
}
_WAYS_OUT = {
    "NoSuchBucket": "make the bucket, or correct its name",
    "AccessDenied": "these credentials may not do that; listing, reading and writing objects is needed",
    "403": "these credentials may not do that; listing, reading and writing objects is needed",
    "InvalidAccessKeyId": "check the credentials that boto3 finds",
    "SignatureDoesNotMatch": "check the credentials that boto3 finds",
    "ExpiredToken": "renew the credentials that boto3 finds",
}


class S3Store:
    """See the module. `prefix` is without `/` at its ends; "" for the whole bucket."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None = None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        with self._told():
            try:
                self._client: Any = boto3.client("s3", endpoint_url=endpoint_url, config=CONFIG)
            except ValueError as error:
                raise StoreError(f"{self.describe()}: {error}; correct the endpoint's URL") from error

    def describe(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def list(self, below: str) -> Iterator[tuple[str, int]]:
        prefix = self._prefix + (f"{below}/" if below else "")
        with self._told():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield entry["Key"].removeprefix(self._prefix), entry["Size"]

    def head(self, name: str) -> Stored | None:
        with self._told():
            try:
                return _stored(self._client.head_object(Bucket=self._bucket, Key=self._prefix + name))
            except botocore.exceptions.ClientError as error:
                if _code(error) in ("404", "NoSuchKey", "NotFound"):
                    return None
                raise

    def put(self, name: str, content: bytes, sha256: str) -> None:
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        with self._told():
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + name,
                Body=content,
                ContentMD5=base64.b64encode(md5).decode(),
                Metadata={SHA256: sha256},
            )

    def get(self, name: str, file: BinaryIO) -> Stored:
        with self._told():
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            except self._client.exceptions.NoSuchKey as error:
                text = f"{self.describe()}/{name}: has vanished since it was listed; try again, or ship it again"
                raise StoreError(text) from error
            with closing(answer["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    file.write(chunk)
            return _stored(answer)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What boto3 raises, as what it means for us."""
        where = self.describe()
        try:
            yield
        except _NO_CREDENTIALS as error:
            way_out = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or any other source that boto3 knows"
            raise StoreError(f"{where}: no credentials ({error}); {way_out}") from error
        except botocore.exceptions.ParamValidationError as error:
            raise StoreError(f"{where}: {' '.join(str(error).split())}; correct the URL") from error
        except botocore.exceptions.ClientError as error:
            raise self._meaning(error) from error
        except botocore.exceptions.BotoCoreError as error:
            raise StoreAwayError(f"{where}: cannot be reached ({error})") from error

    def _meaning(self, error: botocore.exceptions.ClientError) -> StoreError:
        code, text = _code(error), error.response.get("Error", {}).get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = f"{self.describe()}: {code}{f' ({text})' if text else ''}"
        if status >= 500 or code in _PASSING:
            return StoreAwayError(said)
        return StoreError(f"{said}; {_WAYS_OUT.get(code, 'correct the URL or the settings of the bucket')}")


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown error"))


def _stored(answer: Any) -> Stored:
    return Stored(answer["ContentLength"], answer.get("Metadata", {}).get(SHA256))
