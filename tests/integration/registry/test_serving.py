"""Our registry, request by request, as the distribution-spec 1.1 has it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from typing import Any

import httpx
import pytest
from tests.integration.registry.conftest import Ours
from tests.integration.registry.pictures import described, digest, index_of, picture, tar_of

from boxship.oci import media_types

IMAGE = picture(tar_of(a=b"a" * 5000), tar_of(b=b"b"))
NONE = digest(b"none")


@pytest.fixture
def http(ours: Ours) -> httpx.AsyncClient:
    return ours.putter.http


def refused(answer: httpx.Response) -> tuple[int, str]:
    (error,) = answer.json()["errors"]
    assert set(error) == {"code", "message", "detail"} and error["message"]
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status_code, error["code"]


async def test_the_version_check(http: httpx.AsyncClient) -> None:
    for path in ("/v2/", "/v2"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()) == (200, {})
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


# --- pulling ---


async def test_manifests(ours: Ours, http: httpx.AsyncClient) -> None:
    await ours.putter.image("team/box", "1.0", IMAGE)
    for reference in ("1.0", IMAGE.digest):
        for method in ("GET", "HEAD"):
            answer = await http.request(method, f"/v2/team/box/manifests/{reference}")
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == IMAGE.media_type
            assert answer.headers["Docker-Content-Digest"] == IMAGE.digest
            assert answer.headers["Content-Length"] == str(len(IMAGE.manifest))
            assert answer.content == (IMAGE.manifest if method == "GET" else b"")
    known = await http.get("/v2/team/box/manifests/1.0", headers={"If-None-Match": f'"{IMAGE.digest}"'})
    assert (known.status_code, known.content) == (304, b"")
    assert refused(await http.get("/v2/team/box/manifests/2.0")) == (404, "MANIFEST_UNKNOWN")
    assert refused(await http.get(f"/v2/team/box/manifests/{NONE}")) == (404, "MANIFEST_UNKNOWN")
    assert refused(await http.get("/v2/team/other/manifests/1.0")) == (404, "NAME_UNKNOWN")
    missing = await http.head("/v2/team/box/manifests/2.0")
    assert (missing.status_code, missing.content) == (404, b"")


async def test_blobs_and_their_parts(ours: Ours, http: httpx.AsyncClient) -> None:
    data = os.urandom(300_000)
    await ours.putter.blob("box", data)
    path = f"/v2/box/blobs/{digest(data)}"
    whole = await http.get(path)
    assert whole.content == data
    assert whole.headers["Docker-Content-Digest"] == digest(data)
    assert whole.headers["Accept-Ranges"] == "bytes"
    head = await http.head(path)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "300000", b"")

    for wanted, first, last in (
        ("0-0", 0, 0), ("100-199", 100, 199), ("299999-", 299_999, 299_999), ("5-999999999", 5, 299_999), ("-10", 299_990, 299_999),
        ("-999999999", 0, 299_999),
    ):  # fmt: skip
        part = await http.get(path, headers={"Range": f"bytes={wanted}"})
        assert part.status_code == 206
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/300000"
        assert part.content == data[first : last + 1]
    for wanted in ("300000-", "-0"):
        part = await http.get(path, headers={"Range": f"bytes={wanted}"})
        assert (part.status_code, part.headers["Content-Range"]) == (416, "bytes */300000")
    for wanted in ("bytes=9-5", "bytes=-", "lines=1-2", "bytes=1-2,4-5", "bytes=a-b"):
        assert (await http.get(path, headers={"Range": wanted})).content == data

    assert refused(await http.get(f"/v2/box/blobs/{NONE}")) == (404, "BLOB_UNKNOWN")
    assert refused(await http.get(f"/v2/other/blobs/{digest(data)}")) == (404, "NAME_UNKNOWN")
    assert refused(await http.get("/v2/box/blobs/sha256:abc")) == (400, "DIGEST_INVALID")


async def test_an_empty_blob(ours: Ours, http: httpx.AsyncClient) -> None:
    await ours.putter.blob("box", b"")
    answer = await http.get(f"/v2/box/blobs/{digest(b'')}")
    assert (answer.status_code, answer.content) == (200, b"")


# --- pushing ---


async def begin(http: httpx.AsyncClient, name: str = "box") -> str:
    answer = await http.post(f"/v2/{name}/blobs/uploads/")
    assert (answer.status_code, answer.headers["Range"], answer.headers["Content-Length"]) == (202, "0-0", "0")
    assert answer.headers["Location"].endswith(answer.headers["Docker-Upload-Uuid"])
    return str(answer.headers["Location"])


def assert_created(answer: httpx.Response, name: str, data: bytes) -> None:
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/v2/{name}/blobs/{digest(data)}"
    assert answer.headers["Docker-Content-Digest"] == digest(data)


async def test_a_blob_in_one_request(http: httpx.AsyncClient) -> None:
    data = os.urandom(3_000_000)
    answer = await http.post(f"/v2/box/blobs/uploads/?digest={digest(data)}", content=data)
    assert_created(answer, "box", data)
    assert (await http.get(answer.headers["Location"])).content == data


async def test_a_blob_in_two_requests(http: httpx.AsyncClient) -> None:
    data = os.urandom(3_000_000)
    assert_created(await http.put(await begin(http), params={"digest": digest(data)}, content=data), "box", data)


async def test_a_blob_in_chunks(http: httpx.AsyncClient) -> None:
    data = os.urandom(3_000_000)
    location = await begin(http)
    for start, end in ((0, 1_000_000), (1_000_000, 2_500_000)):
        answer = await http.patch(location, content=data[start:end], headers={"Content-Range": f"{start}-{end - 1}"})
        assert (answer.status_code, answer.headers["Range"]) == (202, f"0-{end - 1}")
        location = answer.headers["Location"]
    status = await http.get(location)
    assert (status.status_code, status.headers["Range"], status.headers["Location"]) == (204, "0-2499999", location)
    answer = await http.put(
        location, params={"digest": digest(data)}, content=data[2_500_000:], headers={"Content-Range": "2500000-2999999"}
    )
    assert_created(answer, "box", data)
    assert refused(await http.get(location)) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_a_stream_without_a_length(http: httpx.AsyncClient) -> None:
    async def stream() -> Any:
        for _ in range(30):
            yield b"x" * 100_000

    data = b"x" * 3_000_000
    answer = await http.patch(await begin(http), content=stream())
    assert answer.headers["Range"] == "0-2999999"
    assert_created(await http.put(answer.headers["Location"], params={"digest": digest(data)}), "box", data)


async def test_chunks_out_of_order(http: httpx.AsyncClient) -> None:
    location = await begin(http)
    await http.patch(location, content=b"0123456789", headers={"Content-Range": "0-9"})
    for start in (0, 9, 11):
        answer = await http.patch(location, content=b"abc", headers={"Content-Range": f"{start}-{start + 2}"})
        assert refused(answer) == (416, "BLOB_UPLOAD_INVALID")
        assert (answer.headers["Range"], answer.headers["Location"]) == ("0-9", location)
    assert refused(await http.patch(location, content=b"abc", headers={"Content-Range": "ten"})) == (400, "BLOB_UPLOAD_INVALID")
    answer = await http.patch(location, content=b"abc", headers={"Content-Range": "10-99"})
    assert refused(answer) == (413, "SIZE_INVALID")


async def test_what_is_not_what_its_digest_says(ours: Ours, http: httpx.AsyncClient) -> None:
    answer = await http.put(await begin(http), params={"digest": NONE}, content=b"data")
    assert refused(answer) == (400, "DIGEST_INVALID")
    assert refused(await http.post(f"/v2/box/blobs/uploads/?digest={NONE}", content=b"data")) == (400, "DIGEST_INVALID")
    assert refused(await http.put(await begin(http), content=b"data")) == (400, "DIGEST_INVALID")
    assert refused(await http.put(await begin(http), params={"digest": "md5:abc"})) == (400, "DIGEST_INVALID")
    assert list(ours.repositories.content.walk()) == []
    assert ours.repositories.names() == []


async def test_another_algorithm(http: httpx.AsyncClient) -> None:
    wanted = f"sha512:{hashlib.sha512(b'data').hexdigest()}"
    answer = await http.put(await begin(http), params={"digest": wanted}, content=b"data")
    assert answer.status_code == 201
    assert (await http.get(f"/v2/box/blobs/{wanted}")).content == b"data"


async def test_an_upload_given_up(http: httpx.AsyncClient) -> None:
    location = await begin(http)
    assert (await http.delete(location)).status_code == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert refused(await http.request(method, location, params={"digest": NONE})) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_an_upload_that_breaks_off_can_go_on(ours: Ours, http: httpx.AsyncClient) -> None:
    data = os.urandom(3_000_000)
    location = await begin(http)
    host, _, port = ours.host.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data[:1_234_567])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    for _ in range(100):
        status = await http.get(location)
        if status.headers["Range"] == "0-1234566":
            break
        await asyncio.sleep(0.02)
    assert status.headers["Range"] == "0-1234566"
    answer = await http.put(
        location, params={"digest": digest(data)}, content=data[1_234_567:], headers={"Content-Range": "1234567-2999999"}
    )
    assert_created(answer, "box", data)


async def test_mounting(ours: Ours, http: httpx.AsyncClient) -> None:
    await ours.putter.blob("source", b"data")
    answer = await http.post("/v2/target/blobs/uploads/", params={"mount": digest(b"data"), "from": "source"})
    assert_created(answer, "target", b"data")
    assert (await http.get(answer.headers["Location"])).content == b"data"
    assert (await http.post("/v2/third/blobs/uploads/", params={"mount": digest(b"data")})).status_code == 201
    for query in ({"mount": NONE, "from": "source"}, {"mount": digest(b"data"), "from": "nowhere"}):
        answer = await http.post("/v2/fourth/blobs/uploads/", params=query)
        assert answer.status_code == 202 and "/uploads/" in answer.headers["Location"]


async def test_manifests_are_checked(ours: Ours, http: httpx.AsyncClient) -> None:
    async def put(reference: str, raw: bytes, media_type: str = IMAGE.media_type) -> httpx.Response:
        return await http.put(f"/v2/box/manifests/{reference}", content=raw, headers={"Content-Type": media_type})

    assert refused(await put("1", IMAGE.manifest)) == (404, "MANIFEST_BLOB_UNKNOWN")
    for data in (*IMAGE.blobs, IMAGE.config):
        await ours.putter.blob("box", data)
    assert refused(await put("1", b"{}")) == (400, "MANIFEST_INVALID")
    assert refused(await put("1", IMAGE.manifest, media_types.OCI_INDEX)) == (400, "MANIFEST_INVALID")
    assert refused(await put(NONE, IMAGE.manifest)) == (400, "DIGEST_INVALID")
    assert refused(await put("1", b" " * (5 << 20))) == (413, "SIZE_INVALID")
    answer = await put("1", IMAGE.manifest)
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v2/box/manifests/{IMAGE.digest}")
    assert refused(await put("all", index_of(picture()), media_types.OCI_INDEX)) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert (await put("all", index_of(IMAGE), media_types.OCI_INDEX)).status_code == 201


@pytest.mark.parametrize("name", ["Box", "box//x", "-box", "box_", "../box", "%2e%2e/box", "a" * 256])
async def test_names_that_are_none(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.request("POST", httpx.URL(str(http.base_url)).copy_with(raw_path=f"/v2/{name}/blobs/uploads/".encode()))
    assert answer.status_code in (400, 404)
    assert refused(answer)[1] in ("NAME_UNKNOWN", "NAME_INVALID")


# --- lists ---


async def test_tags_and_repositories_page_by_page(ours: Ours, http: httpx.AsyncClient) -> None:
    for tag in ("b", "A", "c", "a", "B"):
        await ours.putter.image("box", tag, IMAGE)
    for name in ("zoo/x", "alpha"):
        await ours.putter.blob(name, b"x")

    assert (await http.get("/v2/box/tags/list")).json() == {"name": "box", "tags": ["A", "a", "B", "b", "c"]}
    assert (await http.get("/v2/_catalog")).json() == {"repositories": ["alpha", "box", "zoo/x"]}
    assert (await http.get("/v2/box/tags/list?n=0")).json()["tags"] == []
    assert (await http.get("/v2/box/tags/list?last=b")).json()["tags"] == ["c"]
    pages, target = [], "/v2/box/tags/list?n=2"
    while target:
        answer = await http.get(target)
        pages.append(answer.json()["tags"])
        target = answer.links.get("next", {}).get("url", "")
    assert pages == [["A", "a"], ["B", "b"], ["c"]]
    assert refused(await http.get("/v2/other/tags/list")) == (404, "NAME_UNKNOWN")
    for number in ("-1", "many"):
        assert refused(await http.get(f"/v2/_catalog?n={number}")) == (400, "PAGINATION_NUMBER_INVALID")


async def test_referrers(ours: Ours, http: httpx.AsyncClient) -> None:
    await ours.putter.image("box", "1", IMAGE)
    empty = await http.get(f"/v2/box/referrers/{NONE}")
    assert empty.status_code == 200
    assert empty.headers["Content-Type"] == media_types.OCI_INDEX
    assert empty.json() == {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}

    subject = described(IMAGE.manifest, IMAGE.media_type)
    await ours.putter.blob("box", b"{}")
    for kind in ("text/signature", "text/bill"):
        raw = json.dumps({
            "schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "artifactType": kind, "subject": subject,
            "config": described(b"{}", media_types.OCI_EMPTY), "layers": [], "annotations": {"kind": kind},
        }).encode()  # fmt: skip
        answer = await http.put(f"/v2/box/manifests/{digest(raw)}", content=raw,
                                headers={"Content-Type": media_types.OCI_MANIFEST})  # fmt: skip
        assert (answer.status_code, answer.headers["OCI-Subject"]) == (201, IMAGE.digest)

    found = (await http.get(f"/v2/box/referrers/{IMAGE.digest}")).json()["manifests"]
    assert {(entry["artifactType"], entry["annotations"]["kind"]) for entry in found} == {(k, k) for k in
                                                                                      ("text/signature", "text/bill")}  # fmt: skip
    answer = await http.get(f"/v2/box/referrers/{IMAGE.digest}", params={"artifactType": "text/bill"})
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert [entry["artifactType"] for entry in answer.json()["manifests"]] == ["text/bill"]
    assert refused(await http.get("/v2/box/referrers/none:at-all")) == (400, "DIGEST_INVALID")


# --- removing ---


async def test_removing(ours: Ours, http: httpx.AsyncClient) -> None:
    for tag in ("1", "2"):
        await ours.putter.image("box", tag, IMAGE)
    assert (await http.delete("/v2/box/manifests/1")).status_code == 202
    assert refused(await http.get("/v2/box/manifests/1")) == (404, "MANIFEST_UNKNOWN")
    assert refused(await http.delete("/v2/box/manifests/1")) == (404, "MANIFEST_UNKNOWN")
    assert (await http.get("/v2/box/manifests/2")).status_code == 200

    assert (await http.delete(f"/v2/box/manifests/{IMAGE.digest}")).status_code == 202
    assert refused(await http.get("/v2/box/manifests/2")) == (404, "MANIFEST_UNKNOWN")
    assert (await http.get("/v2/box/tags/list")).json()["tags"] == []

    for data in (*IMAGE.blobs, IMAGE.config):
        assert (await http.delete(f"/v2/box/blobs/{digest(data)}")).status_code == 202
    assert refused(await http.delete(f"/v2/box/blobs/{digest(IMAGE.config)}")) == (404, "NAME_UNKNOWN")
    assert (await http.get("/v2/_catalog")).json() == {"repositories": []}
    assert list(ours.repositories.content.walk()) == []


async def test_what_cannot_be_asked(http: httpx.AsyncClient) -> None:
    answer = await http.put("/v2/box/tags/list")
    assert refused(answer) == (405, "UNSUPPORTED")
    assert answer.headers["Allow"] == "GET, HEAD"
    assert (await http.get("/v1/")).status_code == 404
    assert (await http.get("/")).status_code == 404
