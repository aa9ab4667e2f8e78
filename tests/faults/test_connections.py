"""What is tried at random in a few seconds elsewhere, for as long as the faults go on."""

from typing import Final

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.conftest import Fault
from tests.support.comparison import compare
from tests.support.connections import Loop

EXAMPLES: Final = hypothesis.settings(
    hypothesis.settings.get_profile("default"), max_examples=50, database=None
)
"""Of a try."""


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
