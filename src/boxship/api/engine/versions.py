"""What the versions of the Engine API changed in its documents.

Renderers make every field there is; these functions take away, or put back, what the version asked for did not
have. Source: the history of the API's versions, as published with the API.
"""

from __future__ import annotations

from typing import Any

Version = tuple[int, int]
Document = dict[str, Any]

_ENDPOINT_IN_SETTINGS = (
    "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway",
    "MacAddress",
)  # fmt: skip
_GONE_FROM_SETTINGS = (
    "Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "SecondaryIPAddresses",
    "SecondaryIPv6Addresses", *_ENDPOINT_IN_SETTINGS,
)  # fmt: skip
_CONTAINER_ONLY = (
    "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce", "Image",
)  # fmt: skip
_OPTIONAL_CONFIG = ("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir")


def container(document: Document, version: Version) -> Document:
    """`ContainerInspect`."""
    if version >= (1, 52):
        for key in _GONE_FROM_SETTINGS:
            document["NetworkSettings"].pop(key, None)
        document["HostConfig"].pop("KernelMemoryTCP", None)
        if not document["Config"].get("OnBuild"):
            document["Config"].pop("OnBuild", None)
    if document["HostConfig"].get("Umask") is None or version < (1, 56):
        document["HostConfig"].pop("Umask", None)
    if version < (1, 43):
        document["HostConfig"].pop("Annotations", None)
    _endpoints(document["NetworkSettings"]["Networks"], document["Id"], version)
    return document


def container_summary(document: Document, version: Version) -> Document:
    """An entry of `ContainerList`."""
    if version < (1, 46):
        document["HostConfig"].pop("Annotations", None)
    if version < (1, 52):
        document.pop("Health", None)
    _endpoints(document["NetworkSettings"]["Networks"], "", version)
    return document


def _endpoints(networks: dict[str, Document], container_id: str, version: Version) -> None:
    for name, endpoint in networks.items():
        if version < (1, 44):
            endpoint.pop("DNSNames", None)
        if version < (1, 48):
            endpoint.pop("GwPriority", None)
        if version < (1, 45) and container_id and name not in ("bridge", "host", "none"):
            endpoint["Aliases"] = [*(endpoint["Aliases"] or []), container_id[:12]]


def image(document: Document, version: Version) -> Document:
    """`ImageInspect`."""
    if version >= (1, 44):
        document.pop("VirtualSize", None)
    if version < (1, 45):
        document |= {"Container": "", "ContainerConfig": dict.fromkeys(("Cmd", "Env", "Labels", "Volumes", "Entrypoint"))}
    config = document["Config"]
    if version >= (1, 50):
        for key in _CONTAINER_ONLY:
            config.pop(key, None)
    if version >= (1, 52):
        for key in _OPTIONAL_CONFIG:
            if not config.get(key):
                config.pop(key, None)
        for key in ("Parent", "Comment", "DockerVersion", "Author"):
            if not document[key]:
                del document[key]
    return document


def image_summary(document: Document, version: Version) -> Document:
    """An entry of `ImageList`."""
    if version < (1, 43) and not document["RepoTags"]:
        document["RepoTags"] = ["<none>:<none>"]
        document["RepoDigests"] = document["RepoDigests"] or ["<none>@<none>"]
    if version >= (1, 44):
        document.pop("VirtualSize", None)
    if version < (1, 51):
        document["Containers"] = -1
    return document


def event(document: Document, version: Version) -> Document:
    """`SystemEvents`: the fields of before 1.22 were sent until 1.51."""
    if version < (1, 52) and document["Type"] in ("container", "image"):
        document |= {"status": document["Action"], "id": document["Actor"]["ID"]}
        if document["Type"] == "container" and "image" in document["Actor"]["Attributes"]:
            document["from"] = document["Actor"]["Attributes"]["image"]
    return document


def info(document: Document, version: Version) -> Document:
    """`SystemInfo`."""
    if version < (1, 50):
        document |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    if version < (1, 49):
        for commit in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            document[commit]["Expected"] = document[commit]["ID"]
        document.pop("FirewallBackend", None)
    if version < (1, 44):
        document.pop("CDISpecDirs", None)
    return document


def network(document: Document, version: Version) -> Document:
    """`NetworkInspect` and an entry of `NetworkList`."""
    if version < (1, 48):
        document.pop("EnableIPv4", None)
    if version < (1, 52):
        document.pop("Status", None)
    return document


def disk_usage(document: Document, version: Version, *, verbose: bool) -> Document:
    """`SystemDataUsage`: lists until 1.52, summaries from there on, their items where they are asked for."""
    usage = _usage(document, verbose=verbose)
    if version >= (1, 53) or (version == (1, 52) and verbose):
        return usage
    if version < (1, 42):
        document["BuilderSize"] = sum(entry["Size"] for entry in document.get("BuildCache") or [])
    if version < (1, 44):
        for entry in document.get("Images") or []:
            entry["VirtualSize"] = entry["Size"]
    return {**document, **usage} if version == (1, 52) else document


def _usage(document: Document, *, verbose: bool) -> Document:
    found: Document = {}
    if "Images" in document:
        images = document["Images"]
        unused = sum(max(0, entry["Size"] - max(0, entry["SharedSize"])) for entry in images if not entry["Containers"])
        found["ImageUsage"] = _summary(images, sum(1 for entry in images if entry["Containers"]), unused, document["LayersSize"])
    if "Containers" in document:
        containers = document["Containers"]
        active = [entry for entry in containers if entry["State"] in ("running", "paused", "restarting")]
        idle = sum(entry["SizeRw"] for entry in containers if entry not in active)
        found["ContainerUsage"] = _summary(containers, len(active), idle, sum(entry["SizeRw"] for entry in containers))
    if "Volumes" in document:
        volumes = document["Volumes"]
        sizes = [(max(0, entry["UsageData"]["Size"]), entry["UsageData"]["RefCount"]) for entry in volumes]
        unused = sum(size for size, users in sizes if not users)
        found["VolumeUsage"] = _summary(volumes, sum(1 for _, users in sizes if users), unused, sum(size for size, _ in sizes))
    if "BuildCache" in document:
        entries = document["BuildCache"]
        found["BuildCacheUsage"] = _summary(
            entries, sum(1 for entry in entries if entry["InUse"]),
            sum(entry["Size"] for entry in entries if not entry["InUse"] and not entry["Shared"]),
            sum(entry["Size"] for entry in entries if not entry["Shared"]),
        )  # fmt: skip
    if verbose:
        for usage, items in (("ImageUsage", "Images"), ("ContainerUsage", "Containers"), ("VolumeUsage", "Volumes"),
                             ("BuildCacheUsage", "BuildCache")):  # fmt: skip
            if usage in found and document[items]:
                found[usage]["Items"] = document[items]
    return found


def _summary(items: list[Document], active: int, reclaimable: int, size: int) -> Document:
    return {"ActiveCount": active, "TotalCount": len(items), "Reclaimable": reclaimable, "TotalSize": size}
