"""The event protocol, spoken with a supervisord made of two strings."""

import io
import sys

import pytest

from supervise.events import events, own_stdout


def event(name: str, payload: str = "") -> str:
    """An event as supervisord sends it."""
    return (
        f"ver:3.0 server:supervisor serial:1 pool:health poolserial:1 eventname:{name} "
        f"len:{len(payload)}\n{payload}"
    )


def test_each_event_is_acknowledged_and_the_next_one_asked_for() -> None:
    stdin = io.StringIO(event("TICK_5", "when:5") + event("PROCESS_STATE_EXITED", "pid:7\n\n"))
    stdout = io.StringIO()
    assert list(events(stdin, stdout)) == ["TICK_5", "PROCESS_STATE_EXITED"]
    assert stdout.getvalue() == "READY\n" + 2 * "RESULT 2\nOKREADY\n"


def test_an_event_is_not_acknowledged_before_it_is_dealt_with() -> None:
    stdout = io.StringIO()
    assert next(events(io.StringIO(event("TICK_5")), stdout)) == "TICK_5"
    assert stdout.getvalue() == "READY\n"


def test_stray_prints_stay_out_of_the_protocol(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back at the end
    protocol = own_stdout()
    print("stray")
    protocol.write("READY\n")
    assert capsys.readouterr() == ("READY\n", "stray\n")
