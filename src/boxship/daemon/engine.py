"""The engine put together: every store and service, made once and handed to those that need it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boxship import __version__
from boxship.api.engine.app import EngineAPI
from boxship.api.engine.services import EngineFacts, Services
from boxship.api.registry.app import RegistryAPI
from boxship.build.service import Builder
from boxship.containers.execs import Execs
from boxship.containers.files import Files
from boxship.containers.health import HealthChecks
from boxship.containers.keeper import Keeper
from boxship.containers.restoration import end_leftovers, restore
from boxship.containers.service import Containers
from boxship.content.store import ContentStore
from boxship.daemon.configuration import Settings
from boxship.daemon.executor import ContainerExecutor
from boxship.daemon.listeners import listen, listen_registry
from boxship.errors import BoxshipError, Unavailable
from boxship.events.bus import Events
from boxship.http.server import Server
from boxship.images.model import Image
from boxship.images.store import Images
from boxship.network.service import Networks
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference
from boxship.registry.model import Credentials
from boxship.registry.pull import pull
from boxship.registry.registries import Registries
from boxship.registry.repositories import Repositories
from boxship.runtime.client import SOCKET_NAME, KeeperClient, spawn_keeper
from boxship.runtime.seccomp import Seccomp
from boxship.snapshots.choice import choose
from boxship.state.database import Database
from boxship.volumes.service import Volumes

log = logging.getLogger(__name__)

_HUB = "https://index.docker.io/v1/"


class Engine:
    """One daemon's services; `start` opens its sockets, `stop` ends them and the containers."""

    def __init__(self, settings: Settings, client: KeeperClient) -> None:
        """Raises `Invalid`, `Unsupported`, `Unavailable`, `Internal`."""
        self.settings = settings
        root = settings.data_root
        try:
            self.database = Database(root / "state.db")
        except OSError as error:
            raise Unavailable(f"cannot open {root}/state.db: {(error.strerror or '').lower()}") from error
        self.events = Events()
        self.keeper = Keeper(client)
        self._keeper_pid = client.peer_pid()
        self.snapshotter, reason = choose(root, settings.exec_root, settings.storage_driver or None)
        self.images = Images(ContentStore(root / "content"), self.snapshotter, self.database, self.events)
        self.registries = Registries(
            mirrors=settings.registry_mirrors, insecure=settings.insecure_registries,
            max_downloads=settings.max_concurrent_downloads, max_uploads=settings.max_concurrent_uploads,
        )  # fmt: skip
        self.repositories = Repositories(self.images.content, self.database)
        self.networks = Networks(
            self.database, self.events, instance=settings.instance, bip=settings.bip, pools=settings.default_address_pools
        )
        self.volumes = Volumes(root / "volumes", self.database, self.events)
        instance = settings.instance
        self._cgroup_parent = settings.cgroup_parent or (f"/boxship-{instance}" if instance else "/boxship")
        self.containers = Containers(
            data_root=root, images=self.images, snapshotter=self.snapshotter, networks=self.networks, volumes=self.volumes,
            keeper=self.keeper, database=self.database, events=self.events, seccomp=Seccomp(root / "seccomp"),
            cgroup_parent=self._cgroup_parent,
            default_log=settings.log_driver, no_new_privileges=settings.no_new_privileges,
        )  # fmt: skip
        execs = Execs(self.containers)
        HealthChecks(self.containers, execs)
        executor = ContainerExecutor(self.containers, settings.exec_root / "build")
        self.builder = Builder(self.images, executor, self._pull_base, self.database, root / "build")
        self.images.protected = lambda: self.repositories.kept() | self.builder.kept()
        self.repositories.unused = lambda digests: self.images.collect([], list(digests))
        self._facts = EngineFacts(_identity(root), str(root), reason)
        self.reload(settings)
        services = Services(
            __version__, self._facts, self.containers, execs, Files(self.containers), self.images, self.registries, self.networks,
            self.volumes, self.builder, self.events, self.database,
        )  # fmt: skip
        self.server = Server(EngineAPI(services).handle)
        self._registry_api = RegistryAPI(self.repositories)
        self.registry = Server(self._registry_api.handle)
        self.lost: Callable[[], None] = lambda: None

    async def _pull_base(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Mapping[str, Any],
        emit: Callable[[dict[str, object]], None],
    ) -> Image:
        own = credentials.get(_HUB if reference.registry == "docker.io" else reference.registry) or {}
        known = Credentials(
            own.get("username", ""), own.get("password", ""), own.get("identitytoken", ""), own.get("registrytoken", "")
        )
        return await pull(
            self.registries, self.images, reference, platform=platform, credentials=known if own else None, progress=emit
        )

    async def start(self) -> None:
        """Restore what ran, then listen; raises `Unavailable`, `Invalid`."""
        self.keeper.start()
        self.keeper.lost = lambda: self._replace_keeper_soon()
        await self.networks.start()
        await restore(self.containers)
        self.images.collect_stale()
        await listen(self.server, self.settings)
        if self.settings.registry_listen:
            await listen_registry(self.registry, self.settings.registry_listen)

    def _replace_keeper_soon(self) -> None:
        self.containers.spawn(self._replace_keeper())

    async def _replace_keeper(self) -> None:
        """The keeper was killed: end what it held, and go on with another one."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._keeper_pid, os.WNOHANG)  # noqa: ASYNC222 - it does not wait
        try:
            await asyncio.to_thread(spawn_keeper, self.settings.exec_root)
            client = KeeperClient(self.settings.exec_root / SOCKET_NAME)
        except BoxshipError as error:
            log.critical("no other keeper could be started: %s", error)
            self.lost()
            return
        await end_leftovers(self.containers, set())
        self._keeper_pid = client.peer_pid()
        self.keeper.replace(client)
        log.warning("containers have ended with the keeper; another one was started")

    def reload(self, settings: Settings) -> None:
        """Take over what may change while the engine runs."""
        self.settings = settings
        self.registries.configure(mirrors=settings.registry_mirrors, insecure=settings.insecure_registries)
        facts = self._facts
        facts.labels, facts.mirrors = list(settings.labels), list(settings.registry_mirrors)
        facts.insecure = list(settings.insecure_registries)
        facts.log_driver, facts.debug, facts.live_restore = settings.log_driver, settings.debug, settings.live_restore

    async def stop(self, *, keep_containers: bool) -> None:
        """End everything; containers too unless they are to be kept."""
        if not keep_containers:
            await self.containers.stop_all(self.settings.shutdown_timeout)
        await self.server.close()
        await self.registry.close()
        self._registry_api.close()
        await self.containers.close()
        await self.registries.close()
        running = any(container.state.running for container in self.containers.all())
        await self.networks.close(keep=running)
        if not running:
            with contextlib.suppress(BoxshipError, TimeoutError):
                async with asyncio.timeout(2):
                    await self.keeper.shut_down()
            if not self.settings.cgroup_parent:
                self.containers.cgroups.delete(self._cgroup_parent)
        self.keeper.close()
        if not running:
            self.snapshotter.close()
        self.database.close()


def _identity(root: Path) -> str:
    """A name for this engine that it keeps."""
    file = root / "engine-id"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        identity = str(uuid.uuid4())
        file.write_text(identity + "\n")
        return identity
