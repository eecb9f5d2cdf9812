"""The options that `run` and `create` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]
_Row = tuple[tuple[str, ...], str]

_MANY: tuple[_Row, ...] = (
    (("-e", "--env"), "Set an environment variable."),
    (("--env-file",), "Read environment variables from a file."),
    (("-l", "--label"), "Set a label."),
    (("--label-file",), "Read labels from a file."),
    (("--annotation",), "Set an annotation: name=value."),
    (("-v", "--volume"), "Bind a path or a volume: source:target[:options]."),
    (("--mount",), "Mount a bind, volume or tmpfs: type=…,source=…,target=…."),
    (("--tmpfs",), "Mount a tmpfs: path[:options]."),
    (("--volumes-from",), "Mount the volumes of another container."),
    (("-p", "--publish"), "Publish a port: [[ip:]host:]container[/protocol]."),
    (("--expose",), "Expose a port."),
    (("--network", "--net"), "Connect to a network: a name, or name=…,alias=…,ip=…."),
    (("--network-alias", "--net-alias"), "Another name on the network."),
    (("--link",), "Link to another container: name[:alias]."),
    (("--link-local-ip",), "A link-local address on the network."),
    (("--add-host",), "Add a name and its address: host:ip."),
    (("--dns",), "A name server."),
    (("--dns-search",), "A search domain."),
    (("--dns-option", "--dns-opt"), "An option of the resolver."),
    (("--cap-add",), "Add a capability."),
    (("--cap-drop",), "Drop a capability."),
    (("--device",), "Add a device of the host: path[:target[:rwm]]."),
    (("--device-cgroup-rule",), "Add a rule to the devices allowed, such as 'c 1:3 rwm'."),
    (("--device-read-bps",), "Limit reading from a device: path:bytes a second."),
    (("--device-write-bps",), "Limit writing to a device: path:bytes a second."),
    (("--device-read-iops",), "Limit reading from a device: path:operations a second."),
    (("--device-write-iops",), "Limit writing to a device: path:operations a second."),
    (("--blkio-weight-device",), "The weight of a device: path:weight."),
    (("--security-opt",), "A security option, such as no-new-privileges or seccomp=profile.json."),
    (("--storage-opt",), "An option of the storage driver: name=value."),
    (("--sysctl",), "Set a kernel parameter: name=value."),
    (("--group-add",), "Add a group to the process."),
    (("--ulimit",), "Set a limit: name=soft[:hard]."),
    (("--log-opt",), "An option of the log driver: name=value."),
    (("-a", "--attach"), "Attach to stdin, stdout or stderr only."),
)
_TEXTS: tuple[_Row, ...] = (
    (("--name",), "The container's name."),
    (("-w", "--workdir"), "The working directory."),
    (("-u", "--user"), "The user: name or number, and group."),
    (("--entrypoint",), "Replace the image's entry point."),
    (("-h", "--hostname"), "The host name."),
    (("--domainname",), "The domain name."),
    (("--ip",), "An IPv4 address on the network."),
    (("--ip6",), "An IPv6 address on the network."),
    (("--mac-address",), "The MAC address."),
    (("--restart",), "When to start again: no, on-failure[:n], always, unless-stopped."),
    (("--stop-signal",), "The signal that stops it."),
    (("-m", "--memory"), "The most memory."),
    (("--memory-swap",), "The most memory and swap together; -1 for any."),
    (("--memory-reservation",), "Memory that it keeps under pressure."),
    (("--cpus",), "How many CPUs' time."),
    (("--cpuset-cpus",), "On which CPUs it may run."),
    (("--cpuset-mems",), "On which memory nodes."),
    (("--shm-size",), "The size of /dev/shm."),
    (("--ipc",), "The IPC namespace: private, shareable, host, none or container:NAME."),
    (("--pid",), "The PID namespace: host or container:NAME."),
    (("--uts",), "The UTS namespace: host."),
    (("--userns",), "The user namespace: host."),
    (("--cgroupns",), "The cgroup namespace: host or private."),
    (("--cgroup-parent",), "The parent control group."),
    (("--volume-driver",), "The driver of volumes made for it."),
    (("--log-driver",), "json-file, local or none."),
    (("--cidfile",), "Write the container's id to a file."),
    (("--platform",), "The platform of the image, such as linux/arm64."),
    (("--runtime",), "The runtime."),
    (("--detach-keys",), "The keys that detach (default ctrl-p,ctrl-q)."),
    (("--health-cmd",), "How to check the health."),
    (("--health-interval",), "Between checks, such as 30s."),
    (("--health-timeout",), "How long a check may take."),
    (("--health-start-period",), "How long it may take to start."),
    (("--health-start-interval",), "Between checks while it starts."),
)
_NUMBERS: tuple[_Row, ...] = (
    (("--stop-timeout",), "Seconds until it is killed."),
    (("-c", "--cpu-shares"), "Its weight for CPU time."),
    (("--cpu-period",), "The period of its quota, in microseconds."),
    (("--cpu-quota",), "CPU time in each period, in microseconds."),
    (("--cpu-rt-period",), "The period of real-time scheduling, in microseconds."),
    (("--cpu-rt-runtime",), "Real-time CPU time in each period, in microseconds."),
    (("--memory-swappiness",), "How readily its memory is swapped: 0 to 100, -1 for the host's."),
    (("--blkio-weight",), "Its weight for block devices: 10 to 1000."),
    (("--pids-limit",), "The most processes; -1 for any."),
    (("--oom-score-adj",), "How likely it is killed when memory runs out: -1000 to 1000."),
    (("--health-retries",), "Failures until it is unhealthy."),
)
_SWITCHES: tuple[_Row, ...] = (
    (("-i", "--interactive"), "Keep stdin open."),
    (("-t", "--tty"), "Give it a terminal."),
    (("-q", "--quiet"), "Pull without progress."),
    (("--rm",), "Remove it when it ends."),
    (("--read-only",), "Mount its root read-only."),
    (("--init",), "Run an init that reaps processes."),
    (("-P", "--publish-all"), "Publish every exposed port."),
    (("--privileged",), "Give it everything."),
    (("--no-healthcheck",), "Do not check its health."),
    (("--oom-kill-disable",), "Do not kill it when memory runs out."),
)


def container_options(command: Command) -> Command:
    """Add them to a command."""
    for names, text in reversed(_SWITCHES):
        command = click.option(*names, is_flag=True, help=text)(command)
    for names, text in reversed(_NUMBERS):
        command = click.option(*names, type=int, help=text)(command)
    for names, text in reversed(_TEXTS):
        command = click.option(*names, help=text)(command)
    for names, text in reversed(_MANY):
        command = click.option(*names, multiple=True, help=text)(command)
    return click.option("--pull", type=click.Choice(["always", "missing", "never"]), default="missing",
                        help="When to pull the image.")(command)  # fmt: skip
