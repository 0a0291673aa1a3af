"""Forward and reverse pass over a group of partitions: rounds of messages until nothing is left, whoever is lost.

Each member owns a `GraphPartition` and answers the calls of `Member`. What a partition believes of
others is never below the truth, so a member may be built again from a checkpoint of any age, or
from nothing, while the others go on: its neighbours tell it again what they know, and the result is
the same, bit for bit (docs/algorithm.md).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from d2prune.d2.partition import Letter
from d2prune.errors import D2PruneError, InfrastructureError
from d2prune.execution import Group, Inboxes
from d2prune.execution.progress import Live

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 4
"""Rounds between checkpoints: a run has some 15 to 30 rounds, and losing a member costs it at most so many."""

_MAX_LOSSES = 100


class Member(Protocol):
    """What a group's member must answer; `inbox` and outbox are by partition."""

    def ready(self) -> bool:
        """Whether it stands where a checkpoint left it, rather than at the beginning."""
        ...

    def introduce(self, inbox: Mapping[int, Any], destinations: tuple[int, ...]) -> dict[int, Letter]:
        """Introductions to those of the destinations that are its neighbours."""
        ...

    def start(self, inbox: Mapping[int, Letter]) -> dict[int, Letter]:
        """Forward pass and first messages."""
        ...

    def step(self, inbox: Mapping[int, Letter]) -> dict[int, Letter]:
        """Take in messages, settle, and tell what changed."""
        ...

    def resend(self, inbox: Mapping[int, Any], destinations: tuple[int, ...]) -> dict[int, Letter]:
        """All that those of the destinations that are its neighbours may know."""
        ...

    def progress(self) -> "Progress":
        """How far it is."""
        ...

    def checkpoint(self) -> None:
        """Store its state."""
        ...


@dataclass(frozen=True)
class Progress:
    """Of one member, or summed: own nodes, those not final yet, message entries sent so far."""

    nodes: int
    remaining: int
    sent: int


def settle(
    group: Group, finish: str, closing: Sequence[str] = (), checkpoint_every: int = CHECKPOINT_EVERY
) -> list[Any]:
    """Build the members, run to the end, and return what each one's method `finish` says, by member.

    Args:
        group: one member per partition; its members answer `Member`, `finish` and what `closing` names.
        finish: name of the method that commits a member's result.
        closing: methods of `Group.exchange` before it, one after the other, each with the letters
            of the one before; all of them again where a member was lost.
        checkpoint_every: rounds between checkpoints.

    Raises:
        D2PruneError: no progress, that is, a graph that is not symmetric.
        InfrastructureError: members are lost again and again.
    """
    with Live("rank", 0, "nodes") as live:
        return _rounds(group, finish, closing, checkpoint_every, live)


def _rounds(
    group: Group, finish: str, closing: Sequence[str], checkpoint_every: int, live: Live
) -> list[Any]:
    everyone = range(group.size)
    inboxes: Inboxes = {}
    lost: set[int] = set(everyone)
    losses, rounds = 0, 0
    while True:
        if lost:
            losses += len(lost) if rounds else 0
            if losses > _MAX_LOSSES:
                raise InfrastructureError(
                    f"rank: partitions were lost {losses} times; see the cluster's health"
                )
            inboxes = _recover(group, lost, inboxes)
        progress = group.call("progress", everyone)
        lost = set(everyone) - progress.keys()
        if lost:
            continue
        remaining, sent = sum(p.remaining for p in progress.values()), sum(p.sent for p in progress.values())
        nodes = sum(p.nodes for p in progress.values())
        live.update(nodes - remaining, note=f"round {rounds}, {sent:,} messages", total=nodes)
        if not any(inboxes.values()):
            if remaining:
                raise D2PruneError(
                    f"{remaining} nodes are left and no partition has news: the graph is not symmetric"
                )
            results, lost = _finish(group, finish, closing)
            if not lost:
                log.info("rank: %d partitions, %d rounds, %d messages", group.size, rounds, sent)
                return [results[member] for member in everyone]
            continue
        if group.size > 1 and rounds % checkpoint_every == checkpoint_every - 1:
            group.call("checkpoint", everyone)
        inboxes, lost = group.exchange("step", everyone, inboxes)
        rounds += 1


def _finish(group: Group, finish: str, closing: Sequence[str]) -> tuple[dict[int, Any], set[int]]:
    """Results by member, and those that are lost; a letter that never came makes its source one of these."""
    everyone = range(group.size)
    letters: Inboxes = {}
    for method in closing:
        letters, lost = group.exchange(method, everyone, letters)
        if lost:
            return {}, lost
    results = group.call(finish, everyone)
    return results, set(everyone) - results.keys()


def _recover(group: Group, lost: set[int], pending: Inboxes) -> Inboxes:
    """Build the lost members and let their neighbours tell them what they know; returns the inboxes of the next round.

    `pending` are messages on their way; those to the lost are replaced. Members lost meanwhile are
    built as well.
    """
    everyone = range(group.size)
    for _ in range(_MAX_LOSSES):
        restored = group.build(sorted(lost))
        fresh = tuple(member for member, at_checkpoint in restored.items() if not at_checkpoint)
        gone = lost - restored.keys()
        started: Inboxes = {}
        resent: Inboxes = {}
        if not gone and fresh:
            introductions, gone = group.exchange("introduce", everyone, {}, fresh)
            if not gone:
                started, gone = group.exchange("start", fresh, introductions)
        if not gone and len(fresh) < group.size:
            resent, gone = group.exchange("resend", everyone, {}, tuple(sorted(lost)))
        if gone:
            lost |= gone
            continue
        inboxes: Inboxes = {}
        for member in everyone:
            known = {} if member in lost else pending.get(member, {})
            inboxes[member] = known | started.get(member, {}) | resent.get(member, {})
        return inboxes
    raise InfrastructureError(f"rank: partitions {sorted(lost)} cannot be built")
