"""Speaks HTTP to a hub: which files a dataset has, and the answer to a request for one of them.

Everything that can go wrong with a request is told apart here: worth another try (TryAgain), or an error for people.
Bytes and files are transfer.py's.
"""

import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Literal, Self, TypeVar
from urllib.parse import urljoin

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from nanochat.data.hub.patience import Patience, Throttle, TryAgain, parse_retry_after
from nanochat.errors import DataError, NanochatError, NotFound, Unavailable
from nanochat.protocol.hub import HubReference
from nanochat.settings import HubSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONNECT_TIMEOUT_S = 10.0
_MAX_REDIRECTS = 5
_MAX_LIST_BYTES = 64 * 2**20
_MAX_PAGES = 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SAFE_NAME = re.compile(r"[^/\\\0]{1,200}")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """`name` is what it is called here. What the hub does not tell of its content is None."""

    name: str
    url: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The parquet files of one commit, sorted by name: never a mixture of two versions of a dataset."""

    commit: str
    files: tuple[RemoteFile, ...]


class _Lfs(BaseModel):
    oid: str = Field(pattern=_SHA256.pattern)  # of the content
    size: int = Field(ge=0)


class _TreeEntry(BaseModel):
    type: Literal["file", "directory"]
    path: str
    size: int = Field(default=0, ge=0)
    lfs: _Lfs | None = None


class _Revision(BaseModel):
    sha: str = Field(pattern=r"^[0-9a-f]{7,64}$")


_TREE = TypeAdapter(list[_TreeEntry])


class Hub:
    """`async with Hub(settings) as hub`. Redirects are followed; the token goes to the hub's own host alone."""

    def __init__(self, settings: HubSettings, patience: Patience | None = None) -> None:
        self.url = settings.url.rstrip("/")
        self.num_parallel = settings.num_parallel
        self._token = settings.token.get_secret_value()
        self.throttle = Throttle(patience or Patience(max_attempts=settings.max_attempts))
        self._client = httpx.AsyncClient(
            # No byte for so long: the connection is given up. No bound for waiting in line for one of our own.
            timeout=httpx.Timeout(settings.stall_timeout_s, connect=_CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=settings.num_parallel),
            # Ranges and checksums are of the file's own bytes, never of a compressed answer's.
            headers={"user-agent": "nanochat", "accept-encoding": "identity"},
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def list_parquet(self, source: HubReference) -> Listing:
        """Every parquet file below the source's path. Raises DataError when there is none, NotFound, Unavailable."""
        api = f"{self.url}/api/datasets/{source.repository}"
        content, _ = await self._get(f"{api}/{source.url('revision', source.revision)}")
        commit = _checked(_Revision.model_validate_json, content, source).sha
        folder, wanted = source.path, ""
        if folder.endswith(".parquet"):  # one file: its folder is listed
            folder, wanted = folder.rpartition("/")[0], folder
        entries: list[_TreeEntry] = []
        page: str | None = f"{api}/{source.url('tree', commit, path=folder)}?recursive=true&limit=1000"
        for _ in range(_MAX_PAGES):
            if page is None:
                break
            content, page = await self._get(page)
            entries += _checked(_TREE.validate_json, content, source)
        chosen = [entry for entry in entries if entry.type == "file" and entry.path.endswith(".parquet")]
        chosen = [entry for entry in chosen if not wanted or entry.path == wanted]
        if not chosen:
            raise DataError(f"{source} holds no *.parquet file; name another revision or folder of it.", param="source")
        base = f"{self.url}/datasets/{source.repository}"
        files = [
            RemoteFile(
                name=_local_name(entry.path, folder),
                url=f"{base}/{source.url('resolve', commit, path=entry.path)}",
                size_bytes=entry.lfs.size if entry.lfs else entry.size,
                sha256=entry.lfs.oid if entry.lfs else None,
            )
            for entry in chosen
        ]
        if len({file.name for file in files}) < len(files):
            raise DataError(
                f"{source} holds files whose names differ by folder alone; name one folder.", param="source"
            )
        return Listing(commit=commit, files=tuple(sorted(files, key=lambda file: file.name)))

    @asynccontextmanager
    async def request(self, url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[httpx.Response]:
        """The answer to a GET, not read yet: 200, 206 or 416. Raises TryAgain, while read too, or a NanochatError."""
        await self.throttle.turn()
        sent = dict(headers or {})
        if self._token and _origin(httpx.URL(url)) == _origin(httpx.URL(self.url)):
            sent["authorization"] = f"Bearer {self._token}"
        try:
            async with self._client.stream("GET", url, headers=sent) as response:
                self._check(response, url)
                yield response
        except httpx.UnsupportedProtocol as exc:
            raise DataError(f"{url} leads to an address that is neither http nor https.") from exc
        except httpx.TransportError as exc:
            raise TryAgain(_reason(exc)) from exc
        except (httpx.TooManyRedirects, httpx.InvalidURL) as exc:
            raise DataError(f"{url} leads from one address to the next without end: {exc}.") from exc

    async def _get(self, url: str) -> tuple[bytes, str | None]:
        """Body, and address of the next page. Raises NotFound, DataError, Unavailable."""
        failures = 0
        while True:
            try:
                async with self.request(url) as response:
                    body = bytearray()
                    async for chunk in response.aiter_raw():
                        body += chunk
                        if len(body) > _MAX_LIST_BYTES:
                            raise DataError(
                                f"{url} answered with more than {_MAX_LIST_BYTES} bytes for a list of files."
                            )
                    return bytes(body), self._next_page(response)
            except TryAgain as exc:
                failures += 1
                if failures >= self.throttle.patience.max_attempts:
                    raise self.unreachable(failures, exc) from exc
                log.warning("hub_retried", extra={"url": url, "attempt": failures, "reason": exc.reason})
                await self.throttle.pause(failures, exc.retry_after_s)

    def unreachable(self, failures: int, last: TryAgain) -> Unavailable:
        return Unavailable(
            f"{self.url} did not give what was asked for in {failures} attempts; the last one: {last.reason}. Check "
            "the network, a proxy (HTTPS_PROXY) and NANOCHAT_HUB_URL, and start again: what is there already stays."
        )

    def _next_page(self, response: httpx.Response) -> str | None:
        following = response.links.get("next", {}).get("url")
        if following is None:
            return None
        url = urljoin(str(response.url), following)
        if _origin(httpx.URL(url)) != _origin(httpx.URL(self.url)):
            raise DataError(f"{self.url} continues its list of files on another host, {httpx.URL(url).host}.")
        return url

    def _check(self, response: httpx.Response, url: str) -> None:
        hops = [hop.url for hop in (*response.history, response)]
        if any(here.scheme == "https" and there.scheme == "http" for here, there in pairwise(hops)):
            raise DataError(f"{url} leads from https to http on {hops[-1].host}, where anyone could change it.")
        status = response.status_code
        if status in _WORTH_ANOTHER_TRY:
            wait_s = parse_retry_after(response.headers.get("retry-after"))
            raise TryAgain(f"{response.url.host} answered {status}", wait_s)
        if status not in (200, 206, 416):
            raise self._refusal(status, url)
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise TryAgain(f"{response.url.host} sent {encoding}, which was not asked for")

    def _refusal(self, status: int, url: str) -> NanochatError:
        if status in (401, 403):
            # The hub answers 401 for what does not exist as well, so that nobody learns which names are taken.
            known = "does not accept NANOCHAT_HUB_TOKEN for it" if self._token else "wants a token for it"
            return DataError(
                f"{url} answered {status}: there is no such dataset, or it is gated or private and the hub {known}. "
                "Check the name, accept its terms on the hub, and set NANOCHAT_HUB_TOKEN.",
                param="source",
            )
        if status == 404:
            return NotFound(f"{url} answered 404: no such dataset, revision or folder. Check the name.", param="source")
        return DataError(f"{url} answered {status}, which is no file. Check NANOCHAT_HUB_URL.", param="source")


def _checked(read: Callable[[bytes], T], content: bytes, source: HubReference) -> T:
    try:
        return read(content)
    except ValidationError as exc:
        raise DataError(
            f"the answer about {source} is not a hub's: {exc.errors(include_url=False)[0]['msg']}. "
            "Check NANOCHAT_HUB_URL."
        ) from exc


def _local_name(path: str, folder: str) -> str:
    """Folders below the one asked for become part of the name. Raises DataError for one that is no plain file's."""
    name = path.removeprefix(f"{folder}/" if folder else "").replace("/", "--")
    if not _SAFE_NAME.fullmatch(name) or name.startswith(".") or not name.isprintable():
        raise DataError(f"the hub lists a file {path!r}, which cannot be a file's name here.", param="source")
    return name


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _reason(exc: httpx.TransportError) -> str:
    """Without addresses: those of a redirect hold signatures."""
    told = {
        httpx.ReadTimeout: "no byte came for too long",
        httpx.ConnectTimeout: "no connection was made in time",
        httpx.RemoteProtocolError: "the connection was cut",
        httpx.ReadError: "the connection was cut",
    }
    return told.get(type(exc), f"{type(exc).__name__}: {exc}")
