"""The management commands: the same verbs, by what they are about."""

from __future__ import annotations

from boxship.cli.main import COMMANDS
from boxship.cli.verb import Entry, Verbs

_CONTAINER = (
    "attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "rename", "restart", "rm",
    "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
)  # fmt: skip
_IMAGE = ("build", "history", "import", "load", "pull", "push", "save", "tag")


def _group(name: str, text: str, entries: dict[str, Entry]) -> Verbs:
    return Verbs(name, dict(sorted(entries.items())), help=text)


container = _group("container", "Containers.", {
    **{name: COMMANDS[name] for name in _CONTAINER},
    "inspect": Entry("inspection:inspect_container", "Show everything about containers"),
    "ls": Entry("ps:ps", "List containers"),
    "list": Entry("ps:ps", ""),
    "ps": Entry("ps:ps", ""),
    "remove": Entry("containers:rm", ""),
    "prune": Entry("containers:prune", "Remove all stopped containers"),
})  # fmt: skip

image = _group("image", "Images.", {
    **{name: COMMANDS[name] for name in _IMAGE},
    "bootstrap": Entry("bootstrap:bootstrap", "Make a base image from this host's packages"),
    "inspect": Entry("inspection:inspect_image", "Show everything about images"),
    "ls": Entry("images:images", "List images"),
    "list": Entry("images:images", ""),
    "prune": Entry("images:prune", "Remove unused images"),
    "rm": Entry("images:rmi", "Remove images"),
    "remove": Entry("images:rmi", ""),
})  # fmt: skip

network = _group("network", "Networks.", {
    "connect": Entry("networks:connect", "Connect a container to a network"),
    "create": Entry("networks:create", "Make a network"),
    "disconnect": Entry("networks:disconnect", "Disconnect a container from a network"),
    "inspect": Entry("inspection:inspect_network", "Show everything about networks"),
    "ls": Entry("networks:ls", "List networks"),
    "list": Entry("networks:ls", ""),
    "prune": Entry("networks:prune", "Remove all unused networks"),
    "rm": Entry("networks:rm", "Remove networks"),
    "remove": Entry("networks:rm", ""),
})  # fmt: skip

volume = _group("volume", "Volumes.", {
    "create": Entry("volumes:create", "Make a volume"),
    "inspect": Entry("inspection:inspect_volume", "Show everything about volumes"),
    "ls": Entry("volumes:ls", "List volumes"),
    "list": Entry("volumes:ls", ""),
    "prune": Entry("volumes:prune", "Remove unused volumes"),
    "rm": Entry("volumes:rm", "Remove volumes"),
    "remove": Entry("volumes:rm", ""),
    "update": Entry("volumes:update", ""),
})  # fmt: skip

system = _group("system", "The engine.", {
    "df": Entry("df:df", "Show what the engine keeps on disk"),
    "dial-stdio": Entry("system:dial_stdio", ""),
    "events": COMMANDS["events"],
    "info": COMMANDS["info"],
    "prune": Entry("system:prune", "Remove unused data"),
})  # fmt: skip

builder = _group("builder", "The build cache.", {
    "build": COMMANDS["build"],
    "prune": Entry("system:builder_prune", "Remove the build cache"),
})  # fmt: skip

context = _group("context", "Engines to speak to: the docker command's own contexts.", {
    "create": Entry("contexts:create", "Make a context"),
    "export": Entry("contexts:export", ""),
    "import": Entry("contexts:import_", ""),
    "inspect": Entry("contexts:inspect", "Show everything about contexts"),
    "ls": Entry("contexts:ls", "List contexts"),
    "list": Entry("contexts:ls", ""),
    "rm": Entry("contexts:rm", "Remove contexts"),
    "remove": Entry("contexts:rm", ""),
    "show": Entry("contexts:show", "Print the name of the context in use"),
    "update": Entry("contexts:update", "Change a context"),
    "use": Entry("contexts:use", "Set the context to use"),
})  # fmt: skip
