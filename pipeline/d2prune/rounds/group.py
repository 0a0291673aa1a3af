"""A pass over a group of workers: rounds of messages until every node is final.

Each member of the group owns a `GraphPartition` and implements `Member`. A partition's bounds of its
ghosts are never below the truth. So a lost member can be built again, from a checkpoint of any age
or from its inputs, while the others continue: its neighbours resend their values, and the result
is the same, bit for bit (docs/algorithm.md).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from d2prune.d2.messages import Message
from d2prune.errors import D2PruneError, InfrastructureError
from d2prune.execution import Group, Inboxes
from d2prune.execution.progress import Live

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 4
"""Rounds between checkpoints: at most this many of some 15 to 30 repeat when a member is lost."""

_MAX_LOSSES = 100


@dataclass(frozen=True)
class Progress:
    """Progress of one member.

    Attributes:
        nodes: own nodes.
        remaining: own nodes that are not final yet.
        sent: entries of messages sent so far.
    """

    nodes: int
    remaining: int
    sent: int


class Member(Protocol):
    """What a member of the group implements. Inboxes are by source, outboxes by destination."""

    def ready(self) -> bool:
        """Whether the member was restored from a checkpoint, rather than built from its inputs."""
        ...

    def send_boundary(self, inbox: Mapping[int, Any], destinations: tuple[int, ...]) -> dict[int, Message]:
        """Send the boundary nodes to those of the destinations that share an edge with it."""
        ...

    def start(self, inbox: Mapping[int, Message]) -> dict[int, Message]:
        """Receive the boundary nodes, run the forward pass and send the first updates."""
        ...

    def step(self, inbox: Mapping[int, Message]) -> dict[int, Message]:
        """Apply updates, finalise what can be, and send what changed."""
        ...

    def resend(self, inbox: Mapping[int, Any], destinations: tuple[int, ...]) -> dict[int, Message]:
        """Send all current values to those of the destinations that share an edge with it."""
        ...

    def progress(self) -> Progress:
        """Report progress."""
        ...

    def checkpoint(self) -> None:
        """Store the member's state."""
        ...


def run_to_completion(
    group: Group,
    commit: str,
    closing: Sequence[str] = (),
    checkpoint_every: int = CHECKPOINT_EVERY,
    label: str = "rank",
) -> list[Any]:
    """Build the members, run rounds until every node is final, and commit the results.

    Args:
        group: one member per partition; implements `Member` and the methods named below.
        commit: method that commits a member's result.
        closing: methods of `Group.exchange` to run before it, in order, each with the messages of the
            one before. If a member is lost, all of them run again.
        checkpoint_every: rounds between checkpoints.
        label: name of the stage, in logs and errors.

    Returns:
        What `commit` returned, by member.

    Raises:
        D2PruneError: a round made no progress because the graph is not symmetric.
        InfrastructureError: members were lost too often.
    """
    with Live(label, 0, "nodes") as live:
        return _run_rounds(group, commit, closing, checkpoint_every, label, live)


def _run_rounds(
    group: Group, commit: str, closing: Sequence[str], checkpoint_every: int, label: str, live: Live
) -> list[Any]:
    members = range(group.size)
    inboxes: Inboxes = {}
    lost: set[int] = set(members)
    losses, rounds = 0, 0
    while True:
        if lost:
            losses += len(lost) if rounds else 0
            if losses > _MAX_LOSSES:
                raise InfrastructureError(
                    f"{label}: workers were lost {losses} times, expected at most {_MAX_LOSSES}; "
                    "check the health of the cluster"
                )
            inboxes = _recover(group, lost, inboxes, label)
        progress = group.call("progress", members)
        lost = set(members) - progress.keys()
        if lost:
            continue
        remaining, sent = sum(p.remaining for p in progress.values()), sum(p.sent for p in progress.values())
        nodes = sum(p.nodes for p in progress.values())
        live.update(nodes - remaining, note=f"round {rounds}, {sent:,} messages", total=nodes)
        if not any(inboxes.values()):
            if remaining:
                raise D2PruneError(
                    f"{label}: {remaining} nodes are not final, but no partition has a message to send: "
                    "the graph is not symmetric"
                )
            results, lost = _commit(group, commit, closing)
            if not lost:
                log.info("%s: %d partitions, %d rounds, %d messages", label, group.size, rounds, sent)
                return [results[member] for member in members]
            continue
        if group.size > 1 and rounds % checkpoint_every == checkpoint_every - 1:
            group.call("checkpoint", members)
        inboxes, lost = group.exchange("step", members, inboxes)
        rounds += 1


def _commit(group: Group, commit: str, closing: Sequence[str]) -> tuple[dict[int, Any], set[int]]:
    """Run the closing exchanges and commit; returns results by member, and the members lost.

    The sender of a message that cannot be fetched counts as lost.
    """
    members = range(group.size)
    messages: Inboxes = {}
    for method in closing:
        messages, lost = group.exchange(method, members, messages)
        if lost:
            return {}, lost
    results = group.call(commit, members)
    return results, set(members) - results.keys()


def _recover(group: Group, lost: set[int], pending: Inboxes, label: str) -> Inboxes:
    """Build the lost members again and let their neighbours resend.

    Members lost in the meantime are built as well.

    Args:
        group: as for `run_to_completion`.
        lost: the lost members.
        pending: messages in flight; those to lost members are replaced.
        label: as for `run_to_completion`.

    Returns:
        The inboxes of the next round.
    """
    members = range(group.size)
    for _ in range(_MAX_LOSSES):
        restored = group.build(sorted(lost))
        fresh = tuple(member for member, from_checkpoint in restored.items() if not from_checkpoint)
        gone = lost - restored.keys()
        started: Inboxes = {}
        resent: Inboxes = {}
        if not gone and fresh:
            boundaries, gone = group.exchange("send_boundary", members, {}, fresh)
            if not gone:
                started, gone = group.exchange("start", fresh, boundaries)
        if not gone and len(fresh) < group.size:
            resent, gone = group.exchange("resend", members, {}, tuple(sorted(lost)))
        if gone:
            lost |= gone
            continue
        inboxes: Inboxes = {}
        for member in members:
            kept = {} if member in lost else pending.get(member, {})
            inboxes[member] = kept | started.get(member, {}) | resent.get(member, {})
        return inboxes
    raise InfrastructureError(f"{label}: workers {sorted(lost)} were lost again after {_MAX_LOSSES} attempts")
