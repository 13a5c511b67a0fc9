"""WebDAV over webdav4: a range is one request, where its file objects begin to read the whole file for each."""

import asyncio
import functools
from collections.abc import Sequence

from jcache.origin import OriginRange
from jcache_plugins.origins.base import FileSystemOrigin, in_thread

__all__ = ["WebDavOrigin"]

PARTIAL = 206


class WebDavOrigin(FileSystemOrigin):
    """One file of a WebDAV server, proved as files of any file system are.

    What is no good answer to a range is the file system's own to say, by its own way.
    """

    async def _read(self, ranges: Sequence[OriginRange]) -> list[bytes | Exception]:
        return list(await asyncio.gather(*(in_thread(functools.partial(self._get, *part)) for part in ranges)))

    def _get(self, start: int, stop: int | None) -> bytes:
        if stop is not None and stop <= start:
            return b""
        client = self.fs.client
        # Not compressed: a range is one of the file.
        headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}", "Accept-Encoding": "identity"}
        response = client.http.get(client.join_url(self.path), headers=headers, follow_redirects=True)
        body: bytes = response.content
        told = f"bytes {start}-{start + len(body) - 1}/"
        is_part = response.status_code == PARTIAL and response.headers.get("Content-Range", "").startswith(told)
        if not is_part or (stop is not None and len(body) > stop - start):
            body = self.fs.cat_file(self.path, start, stop)
        return body
