"""What a container wants mounted: `--volume`, `--mount`, `--tmpfs`, `--volumes-from`, and the image's volumes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

import msgspec

from boxship.containers.config import ContainerConfig, HostConfig, Mount
from boxship.containers.model import Container, MountPoint
from boxship.errors import BoxshipError, Conflict, Invalid, NotFound, Unsupported
from boxship.images.model import Image
from boxship.syscalls.files import open_in_root
from boxship.volumes.service import Volumes

_PROPAGATIONS = frozenset({"private", "rprivate", "slave", "rslave"})
_SHARED = frozenset({"shared", "rshared"})
# of each group a mode has one at most
_MODES = (
    frozenset({"ro", "rw", "rro"}), frozenset({"z", "Z"}), frozenset({"nocopy", "copy"}),
    frozenset({"cached", "delegated", "consistent"}), _PROPAGATIONS,
)  # fmt: skip

_TMPFS_OPTIONS = frozenset(
    {"ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "strictatime", "relatime", "defaults",
     "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"}
)  # fmt: skip

Find = Callable[[str], Container]


async def resolve(config: ContainerConfig, host: HostConfig, image: Image, volumes: Volumes, find: Find) -> list[MountPoint]:
    """The mount points of a new container, its volumes made; raises `Invalid`, `NotFound`, `Unsupported`."""
    made: list[MountPoint] = []
    try:
        points = _place(made, config, host, image, volumes, find)
    except BoxshipError:
        await remove_anonymous(made, volumes)
        raise
    return [points[key] for key in sorted(points)]


def _place(
    made: list[MountPoint], config: ContainerConfig, host: HostConfig, image: Image, volumes: Volumes, find: Find
) -> dict[str, MountPoint]:
    """The points by destination; `made` gets every one that may have a volume made for it."""
    points: dict[str, MountPoint] = {}
    for entry in host.volumes_from or []:
        for point in _from_container(entry, find):
            points[point.destination] = point
    explicit: set[str] = set()

    def place(point: MountPoint) -> None:
        made.append(point)
        if point.destination in explicit:
            raise Invalid(f"Duplicate mount point: {point.destination}")
        explicit.add(point.destination)
        points[point.destination] = point

    for text in host.binds or []:
        place(_bind(text, volumes))
    for mount in host.mounts or []:
        place(_mount(mount, volumes))
    for destination, options in (host.tmpfs or {}).items():
        place(MountPoint("tmpfs", _clean(destination), options=_tmpfs_options(options)))
    image_volumes = image.config.config.volumes if image.config.config else None
    for destination in {**(image_volumes or {}), **(config.volumes or {})}:
        if _clean(destination) not in points:
            points[_clean(destination)] = _anonymous(destination, volumes)
            made.append(points[_clean(destination)])
    return points


def _anonymous(destination: str, volumes: Volumes) -> MountPoint:
    cleaned = _clean(destination)
    volume = volumes.create()
    return MountPoint("volume", cleaned, str(volumes.path(volume.name)), volume.name, "local", copy=True, anonymous=True)


async def remove_anonymous(points: Iterable[MountPoint], volumes: Volumes) -> None:
    """Remove the volumes that nobody named, unless another container uses them."""
    for point in points:
        if point.kind == "volume" and point.anonymous:
            with contextlib.suppress(NotFound, Conflict):
                await volumes.remove(point.name)


def _tmpfs_options(text: str) -> list[str]:
    options = [part for part in text.split(",") if part]
    for option in options:
        if option.partition("=")[0] not in _TMPFS_OPTIONS:
            raise Invalid(f"invalid tmpfs option {option!r}")
    return options


def _clean(path: str) -> str:
    if not path.startswith("/"):
        raise Invalid(f"invalid mount path: '{path}' mount path must be absolute")
    cleaned = os.path.normpath(path)
    cleaned = "/" + cleaned.lstrip("/")
    if cleaned == "/":
        raise Invalid("invalid specification: destination can't be '/'")
    return cleaned


def _bind(text: str, volumes: Volumes) -> MountPoint:
    parts = text.split(":")
    if len(parts) == 1:
        return _anonymous(text, volumes)
    if len(parts) > 3 or not all(parts[:2]):
        raise Invalid(f"invalid volume specification: '{text}'")
    source, destination = parts[0], _clean(parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    options = mode.split(",") if mode else []
    for option in options:
        if option in _SHARED:
            raise Unsupported(f"bind propagation {option} is not supported: mounts made in a container stay in it")
    known = [[option for option in options if option in group] for group in _MODES]
    if sum(map(len, known)) != len(options) or any(len(given) > 1 for given in known):
        raise Invalid(f"invalid mode: {mode}")
    propagation = "".join(known[-1])
    writable, copy = not {"ro", "rro"} & set(options), "nocopy" not in options
    if source.startswith("/"):
        if not copy:
            raise Invalid(f"invalid mode: {mode} (nocopy is for volumes)")
        return MountPoint("bind", destination, os.path.normpath(source), mode=mode, read_write=writable,
                          propagation=propagation or "rprivate", options=["create"])  # fmt: skip
    if propagation:
        raise Invalid(f"invalid mode: {mode} (propagation is for binds)")
    volume = volumes.create(source)
    return MountPoint("volume", destination, str(volumes.path(volume.name)), volume.name, "local", mode or "z", writable, copy=copy)


def _mount(mount: Mount, volumes: Volumes) -> MountPoint:
    _check_fields(mount)
    destination = _clean(mount.target)
    if mount.type == "bind":
        options = mount.bind_options
        propagation = options.propagation if options else ""
        if propagation in _SHARED:
            raise Unsupported(f"bind propagation {propagation} is not supported: mounts made in a container stay in it")
        if propagation and propagation not in _PROPAGATIONS:
            raise Invalid(f"invalid propagation mode: {propagation!r}")
        if not mount.source.startswith("/"):
            raise Invalid(
                f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' mount path must be absolute"
            )
        create = bool(options and options.create_mountpoint)
        if not create and not os.path.exists(mount.source):
            raise Invalid(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
        flags = [
            flag
            for flag, given in (
                ("create", create),
                ("nonrecursive", options and options.non_recursive),
                ("writable-below", options and options.read_only_non_recursive),
            )
            if given
        ]
        return MountPoint("bind", destination, os.path.normpath(mount.source), read_write=not mount.read_only,
                          propagation=propagation or "rprivate", options=flags)  # fmt: skip
    if mount.type == "volume":
        volume_options = mount.volume_options
        driver = volume_options.driver_config if volume_options else None
        subpath = volume_options.subpath if volume_options else ""
        if subpath and (subpath.startswith("/") or ".." in subpath.split("/")):
            raise Invalid(f"invalid subpath {subpath!r}: it must lie in the volume")
        volume = volumes.create(
            mount.source, driver=driver.name if driver else "", options=driver.options if driver else None,
            labels=volume_options.labels if volume_options else None,
        )  # fmt: skip
        copy = not (volume_options and volume_options.no_copy) and not subpath
        return MountPoint("volume", destination, str(volumes.path(volume.name)), volume.name, "local", "z",
                          not mount.read_only, options=[f"subpath={subpath}"] if subpath else [], copy=copy,
                          anonymous=not mount.source)  # fmt: skip
    if mount.type == "tmpfs":
        options_list = []
        if mount.tmpfs_options and mount.tmpfs_options.size_bytes:
            options_list.append(f"size={mount.tmpfs_options.size_bytes}")
        if mount.tmpfs_options and mount.tmpfs_options.mode:
            options_list.append(f"mode={mount.tmpfs_options.mode:o}")
        for option in (mount.tmpfs_options.options if mount.tmpfs_options else None) or []:
            options_list.append("=".join(option))
        if mount.read_only:
            options_list.append("ro")
        return MountPoint("tmpfs", destination, options=options_list)
    if mount.type in ("image", "npipe", "cluster"):
        raise Unsupported(f'mount type "{mount.type}" is not supported')
    raise Invalid(f'mount type unknown: "{mount.type}"')


def _check_fields(mount: Mount) -> None:
    """Raise `Invalid` for what a mount of its type must have or cannot have, in Docker's words."""
    given = {"bind": ("BindOptions", mount.bind_options), "volume": ("VolumeOptions", mount.volume_options),
             "tmpfs": ("TmpfsOptions", mount.tmpfs_options)}  # fmt: skip
    if mount.type not in given:
        return
    problem = ""
    if not mount.target:
        problem = "field Target must not be empty"
    elif mount.type == "bind" and not mount.source:
        problem = "field Source must not be empty"
    elif mount.type == "tmpfs" and mount.source:
        problem = "field Source must not be specified"
    elif mount.bind_options and mount.bind_options.read_only_non_recursive and not mount.read_only:
        problem = "ReadOnlyNonRecursive needs ReadOnly"
    for kind, (field, options) in given.items():
        if kind != mount.type and options is not None:
            problem = problem or f"field {field} must not be specified"
    if problem:
        raise Invalid(f'invalid mount config for type "{mount.type}": {problem}')


def _from_container(entry: str, find: Find) -> list[MountPoint]:
    name, _, mode = entry.partition(":")
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise Invalid(f"invalid mode for volumes-from: {mode}")
    return [
        msgspec.structs.replace(point, copy=False, read_write=point.read_write and mode != "ro")
        for point in find(name).mounts
        if point.kind in ("bind", "volume")
    ]


async def specification(points: list[MountPoint], volumes: Volumes, container: str) -> list[dict[str, object]]:
    """The OCI mounts of the points, outermost first; mounts volumes that are mounts themselves."""
    found: list[dict[str, object]] = []
    taken: list[str] = []
    try:
        for point in sorted(points, key=lambda point: point.destination.count("/")):
            if point.kind == "tmpfs":
                options = ["nosuid", "nodev", "noexec", *point.options]
                for negation in ("exec", "suid", "dev"):
                    if negation in point.options:
                        options.remove("no" + negation)
                found.append({"destination": point.destination, "type": "tmpfs", "source": "tmpfs", "options": options})
                continue
            source = point.source
            if point.kind == "volume":
                taken.append(point.name)
                source = str(await volumes.mount(point.name, container))
                for option in point.options:
                    if option.startswith("subpath="):
                        source = _inside(source, option[8:])
            elif not os.path.exists(source):
                if "create" not in point.options:
                    raise Invalid(f'invalid mount config for type "bind": bind source path does not exist: {source}')
                os.makedirs(source, 0o755, exist_ok=True)
            options = ["bind" if "nonrecursive" in point.options else "rbind", point.propagation or "rprivate"]
            if not point.read_write:
                options += ["ro"] if "writable-below" in point.options else ["ro", "rro"]
            found.append({"destination": point.destination, "type": "bind", "source": source, "options": options})
    except OSError as error:
        _give_back(taken, volumes, container)
        raise Invalid(f"error while creating mount source path '{source}': {error.strerror}") from error
    except BoxshipError:
        _give_back(taken, volumes, container)
        raise
    return found


def _give_back(taken: list[str], volumes: Volumes, container: str) -> None:
    for name in taken:
        volumes.release(name, container)


def _inside(volume: str, subpath: str) -> str:
    """A path in a volume, through a descriptor that no link can lead astray."""
    root = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = open_in_root(root, subpath, os.O_PATH)
        try:
            return os.readlink(f"/proc/self/fd/{found}")
        finally:
            os.close(found)
    except OSError as error:
        raise Invalid(f"cannot access path {subpath!r} in the volume: {(error.strerror or '').lower()}") from error
    finally:
        os.close(root)
