"""A bucket, or a part of one, in S3 or anything that speaks its protocol, through s3fs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Any, Literal

import aiohttp
import s3fs
from botocore.exceptions import BotoCoreError, ClientError

from imagesafety.stored.place import (
    UNREADABLE,
    FileTroubleError,
    PlaceError,
    PlaceSettingError,
    StoredFile,
    Unlisted,
    gone,
    one_line,
    too_large,
)

_ERRORS = (OSError, BotoCoreError, ClientError, aiohttp.ClientError, TimeoutError)
_MISSING = ("404", "NoSuchKey", "NotFound")
_CHANGED = ("412", "PreconditionFailed")
_UNKNOWN = ("501", "NotImplemented")
_REFUSED = ("403", "AccessDenied", "InvalidObjectState", "AllAccessDisabled")


class Bucket:
    """The objects of a bucket whose keys begin with `base`; names are what follows it."""

    removing: Literal["delete", "purge"] = "delete"

    def __init__(self, bucket: str, base: str, options: Mapping[str, Any]) -> None:
        """Raises PlaceSettingError for options that s3fs does not know."""
        self._bucket = bucket
        self._base = f"{base.strip('/')}/" if base.strip("/") else ""
        endpoint = options.get("endpoint_url")
        self.identity = f"s3://{bucket}/{self._base}" + (f" at {endpoint}" if endpoint else "")
        try:
            self._s3 = s3fs.S3FileSystem(
                asynchronous=True, skip_instance_cache=True, use_listings_cache=False, **options
            )
        except (TypeError, ValueError) as error:
            raise PlaceSettingError(f"s3://{bucket}: {one_line(error)}") from error

    async def check(self) -> None:
        """Passes if the bucket can be listed."""
        await self._page("", None, limit=1)

    async def files(
        self, prefix: str, since: float | None
    ) -> AsyncGenerator[StoredFile | Unlisted, None]:
        """As Place.files."""
        following = None
        while True:
            page = await self._page(prefix, following)
            for found in page.get("Contents", ()):
                file = self._stored(found["Key"], found)
                old = since is not None and file.modified is not None and file.modified < since
                # A key with a slash at its end is how some programs show a folder.
                if file.name and not old and not (file.name.endswith("/") and file.size == 0):
                    yield file
            if not page.get("IsTruncated"):
                return
            following = page["NextContinuationToken"]

    async def read(self, file: StoredFile, most: int) -> bytes:
        """As Place.read: the object in the version that was listed, and no other."""
        if file.size > most:
            raise too_large(most)
        try:
            answer = await self._call("get_object", file, **_only(file))
            async with answer["Body"] as body:
                data: bytes = await body.read()
        except _ERRORS as error:
            raise self._trouble(error) from error
        if len(data) > most:
            raise too_large(most)
        return data

    async def look(self, file: StoredFile) -> StoredFile | None:
        """As Place.look."""
        try:
            return self._stored(self._base + file.name, await self._call("head_object", file))
        except _ERRORS as error:
            if _code(error) in _MISSING or isinstance(error, FileNotFoundError):
                return None
            raise self._trouble(error) from error

    async def remove(self, file: StoredFile) -> bool:
        """As Place.remove. The server compares the version, if it can."""
        now = await self.look(file)
        if now is None or now.version != file.version:
            return False
        try:
            try:
                await self._call("delete_object", file, **_only(file))
            except _ERRORS as error:
                if _code(error) not in _UNKNOWN:
                    raise
                await self._call("delete_object", file)
        except _ERRORS as error:
            if _code(error) in (*_MISSING, *_CHANGED):
                return False
            raise self._trouble(error) from error
        return True

    async def close(self) -> None:
        """Closes the connections."""
        creator = getattr(self._s3, "_s3creator", None)
        if creator is not None:
            with contextlib.suppress(*_ERRORS):
                await creator.__aexit__(None, None, None)

    async def _page(
        self, prefix: str, following: str | None, limit: int | None = None
    ) -> dict[str, Any]:
        further = {"ContinuationToken": following} if following else {}
        most = {"MaxKeys": limit} if limit else {}
        wanted = {"Bucket": self._bucket, "Prefix": self._base + prefix}
        try:
            page: dict[str, Any] = await self._s3._call_s3(
                "list_objects_v2", **wanted, **further, **most
            )
        except _ERRORS as error:
            raise PlaceError(f"s3://{self._bucket} can't be listed: {one_line(error)}") from error
        return page

    async def _call(self, method: str, file: StoredFile, **further: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self._s3._call_s3(
            method, Bucket=self._bucket, Key=self._base + file.name, **further
        )
        return answer

    def _stored(self, key: str, found: Mapping[str, Any]) -> StoredFile:
        """A file of what a listing or HEAD says."""
        size = int(found.get("Size", found.get("ContentLength", -1)))
        modified = found.get("LastModified")
        seconds = modified.timestamp() if isinstance(modified, datetime) else None
        version = str(found.get("ETag", "")).strip('"') or f"{seconds}-{size}"
        return StoredFile(key[len(self._base) :], size, version, seconds)

    def _trouble(self, error: BaseException) -> FileTroubleError | PlaceError:
        code = _code(error)
        if code in _MISSING or isinstance(error, FileNotFoundError):
            return gone()
        if code in _CHANGED:
            return FileTroubleError(UNREADABLE, "it was changed before it could be looked at")
        if code in _REFUSED or isinstance(error, PermissionError):
            return FileTroubleError(UNREADABLE, one_line(error))
        return PlaceError(f"s3://{self._bucket} can't be reached: {one_line(error)}")


def _only(file: StoredFile) -> dict[str, str]:
    """Asks for the file in this version only. Without an ETag, a version has a minus sign."""
    is_etag = not file.version.endswith(f"-{file.size}")
    return {"IfMatch": f'"{file.version}"'} if is_etag else {}


def _code(error: BaseException) -> str:
    """The code of S3's own error, if it is one, of which s3fs makes others."""
    for cause in (error, error.__cause__):
        if isinstance(cause, ClientError):
            return str(cause.response.get("Error", {}).get("Code", ""))
    return ""
