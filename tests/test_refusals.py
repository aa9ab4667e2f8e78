"""The pace of refusals: in order, each once, and no more in a time than there may be."""

import asyncio
from functools import partial

from tests.held import in_a_loop
from web.refusals import AT_ONCE, Refusals


@in_a_loop
async def test_so_many_are_refused_at_once_and_the_others_when_their_turn_comes() -> None:
    refusals = Refusals(limit=2 * AT_ONCE)
    refused: list[int] = []
    turns: list[int] = []
    done = asyncio.Event()

    def refuse(number: int) -> None:
        refused.append(number)
        if len(refused) == 3 * AT_ONCE:
            done.set()
        elif len(refused) % AT_ONCE == 0:
            # The loop has done all the rest of its turn before this.
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(refused)))

    for number in range(3 * AT_ONCE):
        refusals.submit(partial(refuse, number))
    assert refused == list(range(AT_ONCE))
    await done.wait()
    assert refused == list(range(3 * AT_ONCE))
    assert turns == [AT_ONCE, 2 * AT_ONCE]


@in_a_loop
async def test_who_asks_again_whenever_it_is_refused_has_no_turn_before_the_others() -> None:
    refusals = Refusals(limit=2)
    refused: list[str] = []
    done = asyncio.Event()

    def refuse_the_hasty() -> None:
        refused.append("hasty")
        if not done.is_set():
            refusals.submit(refuse_the_hasty)

    def refuse_the_other() -> None:
        refused.append("other")
        done.set()

    refusals.submit(refuse_the_hasty)
    refusals.submit(refuse_the_other)
    await done.wait()
    assert refused[: AT_ONCE + 2] == [*["hasty"] * (AT_ONCE + 1), "other"]


@in_a_loop
async def test_where_as_many_wait_as_may_the_next_is_refused_at_once() -> None:
    refusals = Refusals(limit=1)
    refused: list[int] = []
    for number in range(AT_ONCE + 2):
        refusals.submit(partial(refused.append, number))
    assert refused == [*range(AT_ONCE), AT_ONCE + 1]
