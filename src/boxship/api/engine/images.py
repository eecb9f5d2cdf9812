"""`/images` and `/distribution`."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from urllib.parse import urlencode

import msgspec

from boxship.api.engine import progress, render, versions
from boxship.api.engine.filters import Filters, timestamp
from boxship.api.engine.services import Services
from boxship.errors import Invalid, NotFound, Unsupported
from boxship.http.message import Query, Request, Response, json_response
from boxship.images.importing import download, import_tar
from boxship.images.load import load as load_images
from boxship.images.model import Image, Removed
from boxship.images.save import save as save_images
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference
from boxship.registry import distribution
from boxship.registry.model import Credentials
from boxship.registry.pull import pull, pull_all
from boxship.registry.push import push as push_image

Version = tuple[int, int]


class _AuthBody(msgspec.Struct, rename="lower"):
    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


def credentials_of(text: str) -> Credentials | None:
    """The `X-Registry-Auth` header; raises `Invalid` for what cannot be read."""
    if not text:
        return None
    try:
        document = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) or b"null"
        body = msgspec.json.decode(document, type=_AuthBody | None) or _AuthBody()
    except (msgspec.MsgspecError, binascii.Error, ValueError, UnicodeDecodeError) as error:
        raise Invalid(f"invalid X-Registry-Auth header: {error}") from error
    return credentials_from(body)


def credentials_from(body: _AuthBody) -> Credentials | None:
    username, password = body.username, body.password
    if body.auth and not username:
        username, _, password = base64.b64decode(body.auth).decode(errors="replace").partition(":")
    found = Credentials(username, password, body.identitytoken, body.registrytoken, body.serveraddress)
    return found if found != Credentials(server_address=body.serveraddress) else None


def platform_of(query: Query) -> Platform | None:
    """The `platform` parameter: `os/arch`, or the JSON form of newer clients."""
    text = query.get("platform")
    if not text:
        return None
    if text.startswith("{"):
        try:
            return msgspec.json.decode(text.encode(), type=Platform)
        except msgspec.MsgspecError as error:
            raise Invalid(f"invalid platform: {error}") from error
    return Platform.parse(text)


async def list_(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, ("before", "dangling", "label", "label!", "reference", "since", "until"))
    images = services.images
    if request.query.get("filter") and version < (1, 41):
        filters = Filters(Query(urlencode({"filters": json.dumps({"reference": [request.query.get("filter")]})})), ("reference",))
    if request.query.flag("manifests") or request.query.flag("identity"):
        raise Unsupported("listing the manifests of images (manifests, identity) is not supported")
    parents = {image.parent for image in images.all()}
    shared = images.shared_by() if request.query.flag("shared-size") else None
    documents = []
    for image in images.all():
        intermediate = not image.tags and not image.digests and image.id in parents
        if intermediate and not request.query.flag("all"):
            continue
        tags, digests = ([ref for ref in names if _fits(filters, ref)] for names in (image.tags, image.digests))
        if not _matches(services, image, filters, bool(tags or digests)):
            continue
        document = render.image_summary(images, image, shared, images.containers_of(image))
        if filters.get("reference"):
            document["RepoTags"] = [reference.familiar for reference in tags]
            document["RepoDigests"] = [reference.familiar for reference in digests]
        documents.append(versions.image_summary(document, version))
    return json_response(documents)


def _fits(filters: Filters, reference: Reference) -> bool:
    """Whether a name fits: as it is shown, by patterns whose `*` ends at a slash; or in full, to the letter."""
    wanted = filters.get("reference")
    parts = [(pattern.count("/"), pattern.split("/")) for pattern in wanted]
    return (
        not wanted
        or bool({str(reference), reference.name} & set(wanted))
        or any(
            name.count("/") == slashes and all(map(fnmatch.fnmatchcase, name.split("/"), patterns))
            for slashes, patterns in parts
            for name in (reference.familiar, reference.familiar_name)
        )
    )


def _matches(services: Services, image: Image, filters: Filters, named: bool) -> bool:
    labels = image.config.config.labels if image.config.config else None
    if "dangling" in filters:
        # an image that was pulled by its digest is both
        dangling = filters.flag("dangling", default=False)
        if image.tags if dangling else not (image.tags or image.digests):
            return False
    if filters.get("reference") and not named:
        return False
    created = _created(image)
    for name in filters.get("before"):
        if created >= _created(services.images.get(name)):
            return False
    for name in filters.get("since"):
        if created <= _created(services.images.get(name)):
            return False
    return filters.labels(labels) and filters.without_labels(labels) and created < filters.until()


def _created(image: Image) -> int:
    """Nanoseconds since 1970; 0 for an image whose maker wrote something else."""
    try:
        return timestamp(image.created)
    except Invalid:
        return 0


async def create(services: Services, request: Request, version: Version) -> Response:
    """Pull (`fromImage`) or import (`fromSrc`)."""
    query = request.query
    platform = platform_of(query)
    if query.get("fromImage"):
        text, tag = query.get("fromImage"), query.get("tag")
        if tag:
            text = f"{text}@{tag}" if tag.startswith("sha256:") else f"{text}:{tag}"
        reference = Reference.parse(text)
        credentials = credentials_of(request.headers.get("X-Registry-Auth"))

        async def work(emit: progress.Emit) -> None:
            if reference.tag is None and reference.digest is None:
                await pull_all(
                    services.registries, services.images, reference, platform=platform, credentials=credentials, progress=emit
                )
                labels = {}
            else:
                image = await pull(
                    services.registries, services.images, reference, platform=platform, credentials=credentials, progress=emit
                )
                labels = _labels(image)
            await services.database.committed()
            services.events.publish("image", "pull", reference.familiar, name=reference.familiar_name, **labels)

        return await progress.streamed(work)
    source = query.get("fromSrc")
    if not source:
        raise Invalid("either fromImage or fromSrc is needed")
    target = (
        Reference.parse(query.get("repo") + (f":{query.get('tag')}" if query.get("tag") else "")) if query.get("repo") else None
    )
    changes = [line for value in query.all("changes") for line in value.splitlines() if line.strip()]

    async def import_(emit: progress.Emit) -> None:
        stream = request.stream() if source == "-" else download(source, emit)
        image = await import_tar(
            services.images, stream, target, changes, query.get("message") or f"Imported from {source}", platform
        )
        await services.database.committed()
        emit({"status": image.id})

    return await progress.streamed(import_)


def _labels(image: Image) -> dict[str, str]:
    found = (image.config.config.labels if image.config.config else None) or {}
    return {key: value for key, value in found.items() if key.isidentifier() and key not in ("kind", "action", "actor", "name")}


async def inspect(services: Services, request: Request, version: Version) -> Response:
    if request.query.flag("manifests"):
        raise Unsupported("inspecting the manifests of an image (manifests) is not supported")
    found = _get(services, request)
    return json_response(versions.image(render.image(services.images, found), version))


def _get(services: Services, request: Request) -> Image:
    """The image named in the path; raises `NotFound` also where it is not of the platform asked for."""
    name = request.parameters["name"]
    found = services.images.get(name)
    platform = platform_of(request.query)
    if platform is not None and not found.config.platform.satisfies(platform):
        raise NotFound(f"image with reference {name} was found but does not provide the specified platform ({platform})")
    return found


async def attestations(services: Services, request: Request, version: Version) -> Response:
    services.images.get(request.parameters["name"])
    return json_response({"message": "attestations of images are not kept by this engine"}, 501)


async def history(services: Services, request: Request, version: Version) -> Response:
    image = _get(services, request)
    return json_response(
        [
            {"Id": entry.id, "Created": render.created_seconds(entry.created), "CreatedBy": entry.created_by,
             "Tags": list(entry.tags) or None, "Size": entry.size, "Comment": entry.comment}
            for entry in services.images.history(image)
        ]
    )  # fmt: skip


async def push(services: Services, request: Request, version: Version) -> Response:
    tag = request.query.get("tag")
    reference = Reference.parse(request.parameters["name"] + (f":{tag}" if tag else ""))
    credentials, platform = credentials_of(request.headers.get("X-Registry-Auth")), platform_of(request.query)

    async def work(emit: progress.Emit) -> None:
        await push_image(services.registries, services.images, reference, credentials=credentials, progress=emit, platform=platform)
        await services.database.committed()
        services.events.publish("image", "push", reference.familiar, name=reference.familiar_name)

    return await progress.streamed(work)


async def tag(services: Services, request: Request, version: Version) -> Response:
    repository, name = request.query.get("repo"), request.query.get("tag")
    image = services.images.get(request.parameters["name"])
    services.images.tag(image, Reference.parse(f"{repository}:{name}" if name else repository))
    await services.database.committed()
    return Response(201)


def _removed(removed: list[Removed]) -> list[dict[str, str]]:
    return [{"Untagged": r.untagged} if r.untagged else {"Deleted": r.deleted or ""} for r in removed]


async def remove(services: Services, request: Request, version: Version) -> Response:
    query = request.query
    if "platforms" in query:
        raise Unsupported("removing single platforms of an image (platforms) is not supported")
    removed = services.images.remove(request.parameters["name"], force=query.flag("force"), prune_parents=not query.flag("noprune"))
    await services.database.committed()
    return json_response(_removed(removed))


async def prune(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, ("dangling", "label", "label!", "until"))
    dangling = filters.flag("dangling", default=True)
    until = filters.until()

    def accept(image: Image) -> bool:
        labels = image.config.config.labels if image.config.config else None
        return (
            (not dangling or not image.tags)
            and filters.labels(labels)
            and filters.without_labels(labels)
            and _created(image) < until
        )

    removed, freed = services.images.prune(accept)
    await services.database.committed()
    services.events.publish("image", "prune", "", reclaimed=str(freed))
    report = {"ImagesDeleted": _removed(removed) or None, "SpaceReclaimed": freed}
    return progress.pruned(request, version, [r.deleted for r in removed if r.deleted], report)


async def save(services: Services, request: Request, version: Version) -> Response:
    if len(request.query.all("platform")) > 1:
        raise Unsupported("saving several platforms of an image is not supported")
    names = [request.parameters["name"]] if "name" in request.parameters else request.query.all("names")
    if not names:
        raise Invalid("no image is named (query parameter names)")
    return Response(200, save_images(services.images, names, platform_of(request.query)), {"Content-Type": "application/x-tar"})


async def load(services: Services, request: Request, version: Version) -> Response:
    if request.query.get("platform"):
        raise Unsupported("loading only some platforms (platform) is not supported")

    async def work(emit: progress.Emit) -> None:
        progress_of = (lambda _: None) if request.query.flag("quiet") else emit
        for line in await load_images(services.images, request.stream(), progress_of):
            emit({"stream": line + "\n"})
        await services.database.committed()

    return await progress.streamed(work)


async def search(services: Services, request: Request, version: Version) -> Response:
    raise Unsupported("searching a registry is not supported", hint="search on the registry's own pages")


async def distribute(services: Services, request: Request, version: Version) -> Response:
    credentials = credentials_of(request.headers.get("X-Registry-Auth"))
    reference = Reference.parse(request.parameters["name"]).with_default_tag()
    return json_response(await distribution.inspect(services.registries, reference, credentials))


async def login(services: Services, request: Request, version: Version) -> Response:
    body = await request.json(_AuthBody)
    credentials = credentials_from(body)
    if credentials is None:
        raise Invalid("credentials are needed: username and password")
    token = await services.registries.login(credentials)
    return json_response({"IdentityToken": token, "Status": "Login Succeeded"})


ENDPOINTS = (
    ("GET", "/images/json", list_),
    ("POST", "/images/create", create),
    ("POST", "/images/prune", prune),
    ("POST", "/images/load", load),
    ("GET", "/images/get", save),
    ("GET", "/images/search", search),
    ("GET", "/images/{name:path}/json", inspect),
    ("GET", "/images/{name:path}/history", history),
    ("GET", "/images/{name:path}/attestations", attestations),
    ("GET", "/images/{name:path}/get", save),
    ("POST", "/images/{name:path}/push", push),
    ("POST", "/images/{name:path}/tag", tag),
    ("DELETE", "/images/{name:path}", remove),
    ("GET", "/distribution/{name:path}/json", distribute),
    ("POST", "/auth", login),
)
