"""A group whose members are Ray actors that exchange messages.

A message stays in the object store of the sender's node until the receiver fetches it; the driver
holds references only.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from d2prune import console
from d2prune.errors import D2PruneError
from d2prune.execution import metrics
from d2prune.execution.contract import Inboxes, Resources
from d2prune.execution.ray_worker import describe_error, fetch

log = logging.getLogger(__name__)


class MemberActor:
    """Body of the Ray actor: one member of a group, not built at first and after a restart.

    Methods return (state, value): `done` and the result, `error` and the error, or `lost` if there
    is no member.
    """

    def __init__(self) -> None:
        console.install()
        self._member: Any = None

    def build(self, make_member: list[Any], index: int) -> tuple[str, Any]:
        """Build the member; the result is that of its method `ready`."""
        try:
            self._member = fetch(make_member)(index)
            return "done", self._member.ready()
        except D2PruneError as error:
            return "error", error

    def call(self, method: str) -> tuple[str, Any]:
        """Call a method of the member."""
        if self._member is None:
            return "lost", None
        try:
            return "done", getattr(self._member, method)()
        except D2PruneError as error:
            return "error", error

    def exchange(
        self, method: str, messages: dict[int, list[Any]], arguments: tuple[Any, ...]
    ) -> tuple[str, Any]:
        """Fetch messages, call a method with them, and store what it sends on this node.

        Args:
            method: name of the member's method.
            messages: source -> boxed reference, see `fetch`.
            arguments: further arguments of the method.

        Returns:
            `done`, (destination -> boxed reference, sources whose message could not be fetched).
        """
        import ray

        if self._member is None:
            return "lost", None
        inbox, unreachable = {}, []
        for source, (reference,) in messages.items():
            try:
                inbox[source] = ray.get(reference)
            except ray.exceptions.RayError:
                unreachable.append(source)
        try:
            outbox = getattr(self._member, method)(inbox, *arguments)
        except D2PruneError as error:
            return "error", error
        references = {destination: [ray.put(message)] for destination, message in outbox.items()}
        return "done", (references, unreachable)


class RayGroup:
    """A group of Ray actors. See `Group` for the methods."""

    def __init__(self, ray: Any, make_member: Callable[[int], Any], size: int, resources: Resources) -> None:
        self.size = size
        self._ray = ray
        options = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus, "max_restarts": -1}
        actor_class = ray.remote(**options)(MemberActor)
        self._make_member = [ray.put(make_member)]
        self._actors = [actor_class.remote() for _ in range(size)]

    def build(self, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.build`."""
        return self._collect(
            {index: self._actors[index].build.remote(self._make_member, index) for index in members}
        )

    def call(self, method: str, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.call`."""
        return self._collect({index: self._actors[index].call.remote(method) for index in members})

    def exchange(
        self, method: str, members: Sequence[int], inboxes: Inboxes, *arguments: Any
    ) -> tuple[Inboxes, set[int]]:
        """See `Group.exchange`."""
        pending = {
            index: self._actors[index].exchange.remote(method, inboxes.get(index, {}), arguments)
            for index in members
        }
        results = self._collect(pending)
        lost = set(members) - results.keys()
        outgoing: Inboxes = {}
        for source, (outbox, unreachable) in results.items():
            lost.update(unreachable)
            for destination, message in outbox.items():
                outgoing.setdefault(destination, {})[source] = message
        return outgoing, lost

    def actor(self, member: int) -> Any:
        """The member's actor, for tests that kill one."""
        return self._actors[member]

    def close(self) -> None:
        """See `Group.close`."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _collect(self, pending: dict[int, Any]) -> dict[int, Any]:
        """Results by member, without the members that are lost."""
        results = {}
        for index, reference in pending.items():
            try:
                state, value = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError:
                # A bug in a member: its own traceback is the best message.
                raise
            except self._ray.exceptions.RayError as error:
                log.warning("member %d is lost (%s)", index, describe_error(error))
                metrics.add(metrics.WORKERS_LOST)
                continue
            if state == "error":
                raise value
            if state == "done":
                results[index] = value
        return results
