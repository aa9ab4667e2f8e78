"""The rule for keys as a model: every order of what can happen to a few wishes on two nodes.

A store keeps ``index``, ``floor``, ``generation`` and rows ``key -> outcome``. A key is
``(INDEX, name)``; its outcome is the index that it led to, and an outcome equal to INDEX means
void: it made no step and never will. A batch has a key of its own, so that its node can find out
what became of it, or write it void. ``Rule`` has the transactions. In a ``World`` nodes lose
replies, copies of their batches arrive late, and a client repeats a keyed wish elsewhere; each
state is judged.

A row forgotten at the edge matters for a void one alone: the outcome of a step is above the INDEX
of its key. Settling looks at the floor like a batch does: below it, an absent row proves nothing.

    python -m tests.simulation.rule             every order for the plans of the test
    python -m tests.simulation.rule 100000      and as many random runs of larger plans
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeAlias

Key: TypeAlias = tuple[int, str]


class Wish(NamedTuple):
    """A step that a client wants."""

    nodes: tuple[int, ...]
    """Where it is requested, one after the other; only a keyed one is requested twice."""
    key: Key | None = None
    expected: int | None = None


class Batch(NamedTuple):
    """A request to move the index."""

    generation: int
    key: Key
    wishes: tuple[int, ...]


class Settle(NamedTuple):
    """A request for the outcome of a batch, or to write it void."""

    generation: int
    key: Key


class Reply(NamedTuple):
    """What the store says, with where it is."""

    kind: str
    """made; void; unknowable; conflict: the index is another; keys: some are not new; old: the
    batch's own key is under the floor, or of another generation."""
    at: int
    generation: int
    outcome: int = 0
    keys: tuple[tuple[int, int | None], ...] = ()
    """Of wishes whose keys are not new: their outcomes, or None where it is no longer known."""


@dataclass(frozen=True, slots=True)
class Store:
    """What is committed."""

    index: int = 0
    floor: int = 0
    generation: int = 0
    rows: frozenset[tuple[Key, int]] = frozenset()

    def reply(
        self, kind: str, outcome: int = 0, keys: tuple[tuple[int, int | None], ...] = ()
    ) -> Reply:
        return Reply(kind, self.index, self.generation, outcome, keys)


class Rule:
    """The transactions. Each returns the store after it, and its reply."""

    def is_forgotten(self, key: Key, floor: int) -> bool:
        """Whether the row of a key may have been forgotten."""
        return key[0] < floor

    def is_kept(self, outcome: int, floor: int) -> bool:
        """Whether forgetting leaves a row."""
        return outcome >= floor

    def batch(self, store: Store, batch: Batch, wishes: tuple[Wish, ...]) -> tuple[Store, Reply]:
        """Move the index by a step for each wish, or say what is in the way."""
        rows = dict(store.rows)
        if batch.key in rows:
            outcome = rows[batch.key]
            return store, store.reply("void" if outcome == batch.key[0] else "made", outcome)
        if batch.generation != store.generation or self.is_forgotten(batch.key, store.floor):
            return store, store.reply("old")
        if batch.key[0] > store.index:
            return store, store.reply("unknowable")
        known: list[tuple[int, int | None]] = []
        for each in batch.wishes:
            key, expected = wishes[each].key, wishes[each].expected
            if key is not None:
                if key in rows:
                    known.append((each, rows[key]))
                elif self.is_forgotten(key, store.floor) or key[0] > store.index:
                    known.append((each, None))
            if expected is not None and expected != store.index:
                return store, store.reply("conflict")
        if known:
            return store, store.reply("keys", keys=tuple(known))
        index = store.index
        for each in batch.wishes:
            index += 1
            if (key := wishes[each].key) is not None:
                rows[key] = index
        rows[batch.key] = index
        after = replace(store, index=index, rows=frozenset(rows.items()))
        return after, after.reply("made", index)

    def settle(self, store: Store, settle: Settle) -> tuple[Store, Reply]:
        """Find the outcome of a batch, or write it void."""
        rows, key = dict(store.rows), settle.key
        if settle.generation != store.generation:
            return store, store.reply("unknowable")
        if key in rows:
            outcome = rows[key]
            return store, store.reply("void" if outcome == key[0] else "made", outcome)
        if self.is_forgotten(key, store.floor) or key[0] > store.index:
            return store, store.reply("unknowable")
        return replace(store, rows=store.rows | {(key, key[0])}), store.reply("void")

    def forget(self, store: Store, window: int) -> Store:
        """Raise the floor, and leave out the rows under it."""
        floor = max(store.floor, store.index - window)
        kept = frozenset(row for row in store.rows if self.is_kept(row[1], floor))
        return replace(store, floor=floor, rows=kept)

    def set_index(self, store: Store, index: int) -> Store:
        """Begin again elsewhere."""
        return Store(index, index, store.generation + 1)


@dataclass(frozen=True, slots=True)
class Node:
    """A process that serves."""

    seen: int = 0
    generation: int = 0
    waiting: tuple[int, ...] = ()
    """The wishes that its next batch has."""
    batch: Batch | None = None
    """The batch under way."""
    awaited: int | None = None
    """The copy whose reply it waits for."""
    in_doubt: bool = False
    is_second: bool = False
    """Whether the batch was sent once before, and settled void."""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """One state of everything, and what a plan still lets happen."""

    store: Store
    nodes: tuple[Node, ...]
    asked: tuple[int, ...]
    """How often each wish was requested."""
    copies: frozenset[tuple[int, Batch | Settle]] = frozenset()
    """What was sent and has not arrived yet."""
    sent: int = 0
    losses: int = 0
    forgets: int = 0
    sets: tuple[int, ...] = ()
    """By how much a person moves the index, each once, in this order."""
    made: frozenset[tuple[int, int, int]] = frozenset()
    """Steps: wish, generation, index."""
    answers: frozenset[tuple[int, int, int]] = frozenset()
    """Answers: wish, generation, index; -1 for an error."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What may happen."""

    wishes: tuple[Wish, ...]
    losses: int = 1
    forgets: int = 0
    sets: tuple[int, ...] = ()
    window: int = 1
    nodes: int = 2
    rule: Rule = field(default_factory=Rule)

    def start(self) -> World:
        return World(
            Store(),
            (Node(),) * self.nodes,
            (0,) * len(self.wishes),
            losses=self.losses,
            forgets=self.forgets,
            sets=self.sets,
        )

    def after(self, world: World) -> Iterator[World]:
        """Each state that may come next."""
        for wish, (count, node) in enumerate(
            (count, wish.nodes[count] if count < len(wish.nodes) else None)
            for count, wish in zip(world.asked, self.wishes, strict=True)
        ):
            if node is not None and not world.nodes[node].gone:
                asked = (*world.asked[:wish], count + 1, *world.asked[wish + 1 :])
                there = world.nodes[node]
                yield replace(
                    _with(world, node, replace(there, waiting=(*there.waiting, wish))), asked=asked
                )
        for number, node_ in enumerate(world.nodes):
            yield from self._sends(world, number, node_)
        for copy in world.copies:
            yield from self._arrives(world, copy)
        if world.forgets:
            store = self.rule.forget(world.store, self.window)
            yield replace(world, store=store, forgets=world.forgets - 1)
        if world.sets:
            store = self.rule.set_index(world.store, max(0, world.store.index + world.sets[0]))
            yield replace(world, store=store, sets=world.sets[1:])

    def _sends(self, world: World, number: int, node: Node) -> Iterator[World]:
        if node.gone:
            return
        if node.awaited is not None:
            if world.losses:  # the copy may still arrive
                lost = replace(node, awaited=None, in_doubt=True)
                yield replace(_with(world, number, lost), losses=world.losses - 1)
            return
        key = (node.seen, f"batch{world.sent}")
        if node.in_doubt:
            assert node.batch is not None
            request: Batch | Settle = Settle(node.batch.generation, node.batch.key)
            sending = replace(node, awaited=world.sent)
        elif node.batch is not None:
            request = Batch(node.generation, key, node.batch.wishes)
            sending = replace(node, batch=request, awaited=world.sent)
        elif node.waiting:
            # A key once a batch: a second wish with it waits.
            wishes = tuple(dict.fromkeys(node.waiting))
            request = Batch(node.generation, key, wishes)
            sending = replace(node, waiting=(), batch=request, awaited=world.sent)
        else:
            return
        copies = world.copies | {(world.sent, request)}
        yield replace(_with(world, number, sending), copies=copies, sent=world.sent + 1)

    def _arrives(self, world: World, copy: tuple[int, Batch | Settle]) -> Iterator[World]:
        request = copy[1]
        made = world.made
        if isinstance(request, Batch):
            store, reply = self.rule.batch(world.store, request, self.wishes)
            if store.index != world.store.index:
                made |= {
                    (wish, store.generation, world.store.index + place)
                    for place, wish in enumerate(request.wishes, 1)
                }
        else:
            store, reply = self.rule.settle(world.store, request)
        world = replace(world, store=store, copies=world.copies - {copy}, made=made)
        for number, node in enumerate(world.nodes):
            if node.awaited == copy[0] and not node.gone:
                if world.losses:
                    lost = replace(node, awaited=None, in_doubt=True)
                    yield replace(_with(world, number, lost), losses=world.losses - 1)
                yield self._receives(world, number, replace(node, awaited=None), reply)
                return
        yield world

    def _receives(self, world: World, number: int, node: Node, reply: Reply) -> World:
        batch = node.batch
        assert batch is not None
        if reply.kind == "unknowable" or reply.at < node.seen:
            return _with(world, number, replace(node, gone=True))
        then = replace(node, seen=reply.at, generation=reply.generation, in_doubt=False, batch=None)
        first = reply.outcome - len(batch.wishes) + 1
        answers = {}
        if reply.kind == "made":
            answers = {wish: first + place for place, wish in enumerate(batch.wishes)}
            then = replace(then, is_second=False)
        elif reply.kind == "void" and not node.is_second:
            then = replace(then, batch=batch, is_second=True)
        elif reply.kind == "old":
            then = replace(then, batch=batch)
        elif reply.kind == "keys":
            answers = {wish: -1 if outcome is None else outcome for wish, outcome in reply.keys}
            left = tuple(wish for wish in batch.wishes if wish not in answers)
            then = replace(then, batch=batch._replace(wishes=left) if left else None)
        else:
            if reply.kind == "conflict":
                failed = [
                    w for w in batch.wishes if self.wishes[w].expected not in (None, reply.at)
                ]
            else:
                failed = list(batch.wishes)
            answers = dict.fromkeys(failed, -1)
            left = tuple(wish for wish in batch.wishes if wish not in answers)
            then = replace(
                then, batch=batch._replace(wishes=left) if left else None, is_second=False
            )
        said = {(wish, batch.generation, index) for wish, index in answers.items()}
        return replace(_with(world, number, then), answers=world.answers | said)

    def violation(self, world: World) -> str | None:
        """The promise that a state breaks; None if it breaks none."""
        by_wish: dict[int, set[tuple[int, int]]] = {}
        for wish, generation, index in world.made:
            by_wish.setdefault(wish, set()).add((generation, index))
        for wish, steps in by_wish.items():
            # Whoever lowers the index takes back the steps of keys, and the keys with them.
            taken_back = self.wishes[wish].key is not None and any(by < 0 for by in self.sets)
            if len(steps) > 1 and not taken_back:
                return f"wish {wish} made several steps: {sorted(steps)}"
        places: dict[tuple[int, int], int] = {}
        for wish, generation, index in world.answers:
            if index < 0:
                if wish in by_wish and self.wishes[wish].key is None:
                    return f"wish {wish} got an error, and has stepped"
                continue
            if not any(index == step for _, step in by_wish.get(wish, ())):
                return f"wish {wish} was answered {index}, which it did not make"
            if places.setdefault((generation, index), wish) != wish:
                return f"index {index} was answered twice"
        return None


def _with(world: World, number: int, node: Node) -> World:
    return replace(world, nodes=(*world.nodes[:number], node, *world.nodes[number + 1 :]))


def every_order(plan: Plan) -> int:
    """Try every order; return the number of states.

    Raises:
        AssertionError: a state breaks a promise.
    """
    seen = {plan.start()}
    left = list(seen)
    while left:
        for world in plan.after(left.pop()):
            if world not in seen:
                assert (broken := plan.violation(world)) is None, broken
                seen.add(world)
                left.append(world)
    return len(seen)


def one_order(plan: Plan, seed: int) -> None:
    """Try one random order.

    Raises:
        AssertionError: a state breaks a promise.
    """
    draw = random.Random(seed)
    world = plan.start()
    while following := list(plan.after(world)):
        world = draw.choice(following)
        assert (broken := plan.violation(world)) is None, f"seed {seed}: {broken}"


def plan_of(seed: int) -> Plan:
    """A larger plan."""
    draw = random.Random(seed)
    nodes = draw.choice((2, 3))
    wishes = []
    for number in range(draw.randint(3, 8)):
        places = tuple(draw.randrange(nodes) for _ in range(draw.choice((1, 2, 3))))
        kind = draw.choice(("plain", "keyed", "keyed", "conditional"))
        if kind == "keyed":
            wishes.append(Wish(places, key=(draw.choice((0, 0, 1, 2)), f"client{number}")))
        else:
            expected = draw.randrange(4) if kind == "conditional" else None
            wishes.append(Wish(places[:1], expected=expected))
    sets = draw.choice(((), (), (2,), (-1,), (2, -3)))
    return Plan(
        tuple(wishes),
        losses=draw.randrange(6),
        forgets=draw.randrange(4),
        sets=sets,
        window=draw.choice((0, 1, 2)),
        nodes=nodes,
    )


KEYED: Final = Wish((0, 1), key=(0, "client"))
PLANS: Final = {
    "lost replies": Plan((Wish((0,)), Wish((1,))), losses=2),
    "a key at two nodes": Plan((KEYED, Wish((1,))), losses=2),
    "forgetting": Plan((KEYED, Wish((1,))), losses=1, forgets=2, window=0),
    "a condition": Plan((Wish((0,), expected=0), Wish((1,))), losses=2),
    "a set index": Plan((Wish((0,)), Wish((1,))), losses=2, sets=(1,)),
    "a lowered index": Plan((Wish((0,)), Wish((0,))), losses=2, sets=(-2,), nodes=1),
}
"""Small enough to be searched completely."""


if __name__ == "__main__":
    for name, plan in PLANS.items():
        print(f"{name}: {every_order(plan):,} states")
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 0):
        one_order(plan_of(seed), seed)
