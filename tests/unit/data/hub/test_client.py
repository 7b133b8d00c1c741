"""What is listed, where requests may lead, and who sees the token."""

from pathlib import Path

import httpx
import pytest

from nanochat.data.hub.client import Hub
from nanochat.errors import DataError
from nanochat.protocol.hub import HubReference
from nanochat.settings import HubSettings
from tests.unit.data.hub.conftest import Download
from tests.unit.data.hub.fake_hub import COMMIT, FakeHub, Fault, parquet_like


@pytest.fixture
def cdn(hub: FakeHub) -> FakeHub:
    """Another host, where the hub's bytes are: 'localhost' is one to a client, though it is this machine too."""
    other = FakeHub()
    other.files = hub.files
    hub.cdn = f"http://localhost:{other.port}"
    yield other
    other.close()


async def names(hub: FakeHub, source: str) -> list[str]:
    async with Hub(HubSettings(url=hub.url)) as client:
        return [file.name for file in (await client.list_parquet(HubReference.parse(source))).files]


async def test_the_list_is_of_one_commit_with_sizes_and_checksums(hub: FakeHub) -> None:
    async with Hub(HubSettings(url=f"{hub.url}/")) as client:
        listing = await client.list_parquet(HubReference.parse("hf://acme/text"))
    assert listing.commit == COMMIT
    assert [(file.size_bytes, len(file.sha256 or "")) for file in listing.files] == [
        (300_000 + i, 64) for i in range(4)
    ]
    assert {file.url for file in listing.files} == {
        f"{hub.url}/datasets/acme/text/resolve/{COMMIT}/{name}" for name in hub.files
    }


async def test_a_list_of_several_pages_is_read_to_its_end(hub: FakeHub) -> None:
    hub.files = {f"shard_{index:05d}.parquet": b"" for index in range(25)}
    hub.page_size = 10
    assert await names(hub, "hf://acme/text") == sorted(hub.files)
    assert len(hub.api_calls) == 1 + 3


async def test_a_path_means_a_folder_or_a_file_and_other_files_are_left_out(hub: FakeHub) -> None:
    hub.files = dict.fromkeys(("README.md", "en/a.parquet", "en/deep er/b.parquet", "english/c.parquet"), b"")
    assert await names(hub, "hf://acme/text/en") == ["a.parquet", "deep er--b.parquet"]
    assert await names(hub, "hf://acme/text/en/a.parquet") == ["a.parquet"]
    assert await names(hub, "hf://acme/text") == ["en--a.parquet", "en--deep er--b.parquet", "english--c.parquet"]
    with pytest.raises(DataError, match=r"no \*\.parquet file"):
        await names(hub, "hf://acme/text/ko")


@pytest.mark.parametrize("path", ["a/.hidden.parquet/../x.parquet", "..\\x.parquet", ".x.parquet", "a\nb.parquet"])
async def test_a_name_that_is_no_plain_files_is_refused(hub: FakeHub, path: str) -> None:
    hub.files = {path: b"", "b.parquet": b""}
    if path.startswith("a/"):  # its folders become part of the name, so it can lead nowhere
        assert all("/" not in name for name in await names(hub, "hf://acme/text"))
        return
    with pytest.raises(DataError, match="cannot be a file's name"):
        await names(hub, "hf://acme/text")


async def test_a_list_that_goes_on_at_another_host_is_refused(hub: FakeHub) -> None:
    hub.api_faults = [Fault(body=f'{{"sha": "{COMMIT}"}}'.encode())]
    hub.api_faults += [Fault(headers={"link": '<http://elsewhere.example/x>; rel="next"'}, body=b"[]")]
    with pytest.raises(DataError, match=r"another host, elsewhere\.example"):
        await names(hub, "hf://acme/text")


async def test_bytes_come_from_where_the_hub_redirects_to(
    hub: FakeHub, cdn: FakeHub, folder: Path, get: Download
) -> None:
    cdn.faults["shard_00000.parquet"] = [Fault(cut_after=100_000)]
    await get(num_shards=1)
    assert (folder / "shard_00000.parquet").read_bytes() == hub.files["shard_00000.parquet"]
    assert [served.first for served in cdn.served] == [0, 0, 100_000]
    assert hub.served == []


async def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: FakeHub, cdn: FakeHub, get: Download) -> None:
    await get(num_shards=1, token="secret-token")
    assert {headers.get("authorization") or headers.get("Authorization") for _, headers in hub.api_calls} == {
        "Bearer secret-token"
    }
    assert len(cdn.served) == 2
    for served in cdn.served:
        assert "secret-token" not in str(served.headers)


async def test_neither_the_token_nor_a_signed_address_is_logged(
    hub: FakeHub, cdn: FakeHub, get: Download, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="nanochat")
    cdn.faults["shard_00000.parquet"] = [Fault(status=503), Fault(cut_after=10)]
    await get(num_shards=1, token="secret-token")
    told = [str(record.__dict__) for record in caplog.records if record.name.startswith("nanochat")]
    assert any("download_retried" in line for line in told)
    assert not [line for line in told if "secret" in line]


async def test_the_checksum_that_a_redirect_tells_counts(
    hub: FakeHub, cdn: FakeHub, folder: Path, get: Download
) -> None:
    """The CDN has other bytes of the same length than the hub says."""
    cdn.files = {**hub.files, "shard_00000.parquet": parquet_like(300_000, seed=8)}
    cdn.faults["shard_00000.parquet"] = [Fault(), Fault(body=hub.files["shard_00000.parquet"])]
    await get(num_shards=1)
    assert (folder / "shard_00000.parquet").read_bytes() == hub.files["shard_00000.parquet"]


async def test_a_circle_of_redirects_ends(hub: FakeHub, get: Download) -> None:
    name = "shard_00003.parquet"
    hub.faults[name] = [Fault(redirect=f"/datasets/acme/text/resolve/main/{name}")] * 20
    with pytest.raises(DataError, match="without end"):
        await get()


async def test_a_redirect_to_something_that_is_not_http_is_refused(hub: FakeHub, get: Download) -> None:
    hub.faults["shard_00003.parquet"] = [Fault(redirect="ftp://127.0.0.1/x")]
    with pytest.raises(DataError, match="neither http nor https"):
        await get()


async def test_a_redirect_from_https_to_http_is_refused() -> None:
    hops = [httpx.Response(302, request=httpx.Request("GET", "https://hub.example/x"))]
    response = httpx.Response(200, request=httpx.Request("GET", "http://cdn.example/x"), history=hops)
    async with Hub(HubSettings(url="https://hub.example")) as client:
        with pytest.raises(DataError, match=r"from https to http on cdn\.example"):
            client._check(response, "https://hub.example/x")
