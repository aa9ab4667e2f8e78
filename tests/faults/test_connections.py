"""What is tried at random in a few seconds elsewhere, for as long as the faults go on."""

from typing import Final

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.conftest import Fault
from tests.support.comparison import compare
from tests.support.connections import Loop
from tests.support.state_machine import MACHINES, ServiceMachine

EXAMPLES: Final = hypothesis.settings(
    hypothesis.settings.get_profile("default"), max_examples=50, database=None
)
"""Of a try."""


@pytest.mark.proves(
    "clients",
    "do all of that at once, in any order, while commits take their time, bounds are low, a stop "
    "comes and another process takes over; on a store of our own or a shared one",
    "each step that is made is answered or its client has gone; nothing is answered twice, out "
    "of order, or before it is whole; what is counted is what is held",
)
@pytest.mark.long
@pytest.mark.parametrize("machine", MACHINES, ids=lambda each: each.__name__)
def test_many_connections_in_any_order_of_events(
    fault: Fault, machine: type[ServiceMachine]
) -> None:
    for _ in fault.tries(short=1, long=10_000, share=0.03):
        run_state_machine_as_test(machine, settings=EXAMPLES)


@pytest.mark.long
@pytest.mark.parametrize("odd", [False, True], ids=["valid", "odd"])
def test_any_bytes_to_the_protocol_and_to_the_plain_application(fault: Fault, odd: bool) -> None:
    loop = Loop()

    @EXAMPLES
    @given(st.data())
    def search(drawn: st.DataObject) -> None:
        compare(loop, drawn, odd=odd)

    for _ in fault.tries(short=1, long=10_000, share=0.01):
        search()
    loop.close()
