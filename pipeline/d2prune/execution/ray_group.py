"""Ray actors as members of a group: they live side by side and send one another messages.

Messages stay in the object store of the sender's node until the receiver fetches them; the driver
sees references only.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from d2prune.errors import D2PruneError
from d2prune.execution.contract import Inboxes, Resources, tried

log = logging.getLogger(__name__)


def fetch(boxed: list[Any]) -> Any:
    """What a reference stands for; boxed, Ray hands the reference itself to an actor."""
    import ray

    return ray.get(boxed[0])


class _Member:
    """The Ray actor's body: one member of a group, unbuilt at first and after a restart."""

    def __init__(self) -> None:
        self._member: Any = None

    def build(self, make_member: list[Any], index: int) -> tuple[str, Any]:
        try:
            self._member = tried(lambda: fetch(make_member)(index), f"member {index}")
            return "done", self._member.ready()
        except D2PruneError as error:
            return "error", error

    def call(self, method: str) -> tuple[str, Any]:
        if self._member is None:
            return "lost", None
        try:
            return "done", tried(getattr(self._member, method), method)
        except D2PruneError as error:
            return "error", error

    def exchange(
        self, method: str, letters: dict[int, list[Any]], arguments: tuple[Any, ...]
    ) -> tuple[str, Any]:
        """Fetch the letters, run the method, and keep what it sends in this node's object store."""
        import ray

        if self._member is None:
            return "lost", None
        inbox, unreachable = {}, []
        for source, (reference,) in letters.items():
            try:
                inbox[source] = ray.get(reference)
            except ray.exceptions.RayError:
                unreachable.append(source)
        try:
            outbox = getattr(self._member, method)(inbox, *arguments)
        except D2PruneError as error:
            return "error", error
        return "done", (
            {destination: [ray.put(message)] for destination, message in outbox.items()},
            unreachable,
        )


class RayGroup:
    """Members on Ray actors; messages go from one's node to the other's through the object store."""

    def __init__(self, ray: Any, make_member: Callable[[int], Any], size: int, resources: Resources) -> None:
        self.size = size
        self._ray = ray
        actor = ray.remote(num_cpus=resources.num_cpus, num_gpus=resources.num_gpus, max_restarts=-1)(_Member)
        self._make_member = [ray.put(make_member)]
        self._actors = [actor.remote() for _ in range(size)]

    def build(self, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.build`."""
        return self._results(
            {index: self._actors[index].build.remote(self._make_member, index) for index in members}
        )

    def call(self, method: str, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.call`."""
        return self._results({index: self._actors[index].call.remote(method) for index in members})

    def exchange(
        self, method: str, members: Sequence[int], inboxes: Inboxes, *arguments: Any
    ) -> tuple[Inboxes, set[int]]:
        """See `Group.exchange`."""
        pending = {
            index: self._actors[index].exchange.remote(method, inboxes.get(index, {}), arguments)
            for index in members
        }
        results = self._results(pending)
        lost = set(members) - results.keys()
        outgoing: Inboxes = {}
        for source, (outbox, unreachable) in results.items():
            lost.update(unreachable)
            for destination, letter in outbox.items():
                outgoing.setdefault(destination, {})[source] = letter
        return outgoing, lost

    def actor(self, member: int) -> Any:
        """The member's actor, for whoever wants to kill one."""
        return self._actors[member]

    def close(self) -> None:
        """See `Group.close`."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _results(self, pending: dict[int, Any]) -> dict[int, Any]:
        """What came back, without the members that are lost."""
        results = {}
        for index, reference in pending.items():
            try:
                state, value = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError:
                raise
            except self._ray.exceptions.RayError as error:
                log.warning("member %d is lost (%s)", index, " ".join(str(error).split())[:200])
                continue
            if state == "error":
                raise value
            if state == "done":
                results[index] = value
        return results
