"""Keep clients' bundles: in SSM parameters or, of many clients, in S3 objects under the stack's KMS key."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from botocore.config import Config
from botocore.exceptions import ClientError

import contract
from components.register import KEY_POLICY_ATTEMPTS, ParameterStore, translate_errors

#: Requests under way at a time. S3 takes 3,500 writes a second for a prefix (Amazon S3 User Guide, "Best practices
#: design patterns"), so what limits their number is this machine.
WORKERS = 16

#: Other requests of the account's to KMS share its quota with S3's, so a request is repeated more often than 3 times.
S3_CONFIG = Config(retries={"mode": "adaptive", "total_max_attempts": 20}, max_pool_connections=WORKERS)

#: Keys that one DeleteObjects call takes.
_DELETE_BATCH = 1000

T = TypeVar("T")
U = TypeVar("U")


class BundlePlace(Protocol):
    """A place that keeps bundles by the clients' names."""

    @property
    def bundles(self) -> Mapping[str, str]:
        """Return the bundles in it, by the clients' names."""

    def has(self, client: str, bundle: str) -> bool:
        """Return whether it has a client's bundle with this text, encrypted with the stack's key."""

    def write(self, bundles: Mapping[str, str]) -> Iterator[str]:
        """Write bundles and yield each client's name once its bundle is written; raises `IssuerError`."""

    def delete_all_but(self, clients: Collection[str]) -> None:
        """Delete everything in it but the bundles of `clients`; raises `IssuerError`."""


class ParameterBundles:
    """Bundles as SSM parameters of a gateway."""

    def __init__(self, store: ParameterStore, names: contract.Names) -> None:
        self._store, self._names = store, names

    @property
    def bundles(self) -> Mapping[str, str]:
        below = self._store.under(self._names.clients)
        return {path.partition("/")[0]: bundle for path, bundle in below.items()}

    def has(self, client: str, bundle: str) -> bool:
        return self._store.has(self._names.bundle(client), bundle, secret=True)

    def write(self, bundles: Mapping[str, str]) -> Iterator[str]:
        for client, bundle in bundles.items():
            self._store.put(self._names.bundle(client), bundle, secret=True)
            yield client

    def delete_all_but(self, clients: Collection[str]) -> None:
        remaining = {self._names.bundle(client) for client in clients}
        prefix = f"{self._names.clients}/"
        self._store.delete([n for n in self._store.values if n.startswith(prefix) and n not in remaining])


class ObjectBundles:
    """Bundles as S3 objects, read once and remaining in step.

    The bucket has no versions, so a bundle that is replaced or deleted cannot be read any more. A bucket that does not
    exist has no bundles.

    Args:
        s3: boto3 client.
        names: names of the gateway.
        bucket: name of the bucket.
        account: account that owns the bucket: another's bucket of that name is neither read nor written.
        key: ARN of the KMS key that objects are encrypted with; None if nothing is written.
        tags: tags of new objects, in addition to the stack's own.
        decrypt: whether `bundles` has the texts.
    """

    def __init__(
        self,
        s3: Any,
        names: contract.Names,
        bucket: str,
        account: str,
        key: str | None,
        *,
        tags: Mapping[str, str] = MappingProxyType({}),
        decrypt: bool = True,
    ) -> None:
        self._s3, self._names, self._key = s3, names, key
        # The stack's own replace others of the same key, as they do on the provider's resources.
        self._tags = {**tags, **contract.tags(names.stack)}
        self._place = {"Bucket": bucket, "ExpectedBucketOwner": account}
        self._uri = f"s3://{bucket}/{names.bundle_keys}"
        with translate_errors("read", self._uri):
            self._stored = dict.fromkeys(self._list(), "")
            self._keys: dict[str, str] = {}
            if decrypt:
                for key_name, (text, kms_key) in zip(self._stored, self._map(self._get, [*self._stored]), strict=True):
                    self._stored[key_name], self._keys[key_name] = text, kms_key

    @property
    def bundles(self) -> Mapping[str, str]:
        prefix = f"{self._names.bundle_keys}/"
        return {key.removeprefix(prefix).removesuffix(".ovpn"): text for key, text in self._stored.items()}

    def has(self, client: str, bundle: str) -> bool:
        key = self._names.bundle_key(client)
        return self._stored.get(key) == bundle and self._keys.get(key) == self._key

    def write(self, bundles: Mapping[str, str]) -> Iterator[str]:
        changed = {client: text for client, text in bundles.items() if not self.has(client, text)}
        with translate_errors("write", self._uri):
            for client in self._map(lambda client: self._put(client, changed[client]), [*changed]):
                self._stored[self._names.bundle_key(client)] = changed[client]
                self._keys[self._names.bundle_key(client)] = str(self._key)
                yield client

    def delete_all_but(self, clients: Collection[str]) -> None:
        remaining = {self._names.bundle_key(client) for client in clients}
        keys = [key for key in self._stored if key not in remaining]
        for start in range(0, len(keys), _DELETE_BATCH):
            batch = keys[start : start + _DELETE_BATCH]
            with translate_errors("delete", self._uri):
                objects = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
                errors = self._s3.delete_objects(**self._place, Delete=objects).get("Errors")
                if errors:
                    raise ClientError({"Error": {"Code": errors[0]["Code"]}}, "DeleteObjects")
            for key in batch:
                del self._stored[key]

    def tag(self) -> None:
        """Give existing objects the place's tags instead of those that they have; raises `IssuerError`."""
        tags = {"TagSet": [{"Key": key, "Value": value} for key, value in self._tags.items()]}
        with translate_errors("tag", self._uri):
            for _ in self._map(
                lambda key: self._s3.put_object_tagging(**self._place, Key=key, Tagging=tags), [*self._stored]
            ):
                pass

    def _list(self) -> Iterator[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(**self._place, Prefix=f"{self._names.bundle_keys}/")
        try:
            for page in pages:
                yield from (row["Key"] for row in page.get("Contents", ()))
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchBucket":
                raise

    def _get(self, key: str) -> tuple[str, str]:
        """Return an object's text and the ARN of its KMS key."""
        answer = self._repeat(lambda: self._s3.get_object(**self._place, Key=key))
        return answer["Body"].read().decode(errors="replace"), answer.get("SSEKMSKeyId", "")

    def _put(self, client: str, bundle: str) -> str:
        key = self._names.bundle_key(client)
        # Named also though the bucket's default is the same: its policy refuses an object that does not name it.
        options = {
            "ServerSideEncryption": "aws:kms",
            "SSEKMSKeyId": self._key,
            "Tagging": urlencode(self._tags, quote_via=quote),
        }
        self._repeat(lambda: self._s3.put_object(**self._place, Key=key, Body=bundle.encode(), **options))
        return client

    def _repeat(self, call: Callable[[], T]) -> T:
        """Call S3, again where the stack's key may have a policy that KMS has not applied yet."""
        for _ in range(KEY_POLICY_ATTEMPTS):
            try:
                return call()
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("AccessDenied", "AccessDeniedException"):
                    raise
                time.sleep(1)
        return call()

    def _map(self, call: Callable[[U], T], arguments: Collection[U]) -> Iterator[T]:
        """Yield the results of calls, of which `WORKERS` are under way at a time, in the arguments' order."""
        if not arguments:
            return
        pool = ThreadPoolExecutor(min(WORKERS, len(arguments)))
        try:
            yield from pool.map(call, arguments)
        finally:
            # After a failure, requests that have not begun are not made.
            pool.shutdown(cancel_futures=True)


class Bundles:
    """A gateway's bundles: in the place that is ordered, and in others until they have moved.

    A bundle is written to its new place before it is deleted in a former one, so that a run that is cut off loses none.
    """

    def __init__(self, place: BundlePlace, former: Collection[BundlePlace] = ()) -> None:
        self._place, self._former = place, former

    @property
    def texts(self) -> Mapping[str, Sequence[str]]:
        """Return each client's bundles by the client's name, that in the ordered place first.

        After a move that was given up, a former place may have a newer one.
        """
        texts: dict[str, list[str]] = {}
        for place in (self._place, *self._former):
            for client, text in place.bundles.items():
                texts.setdefault(client, []).append(text)
        return texts

    def has(self, client: str, bundle: str) -> bool:
        """Return whether the ordered place has a bundle."""
        return self._place.has(client, bundle)

    def write(self, bundles: Mapping[str, str]) -> Iterator[str]:
        """Write bundles to the ordered place and yield each client's name once its bundle is written."""
        return self._place.write(bundles)

    def delete_all_but(self, clients: Collection[str]) -> None:
        """Delete what the places have but the bundles of `clients`."""
        for place in (self._place, *self._former):
            place.delete_all_but(clients)

    def leave_former_places(self) -> None:
        """Delete what former places still have."""
        for place in self._former:
            place.delete_all_but(())
