"""Content negotiation, conditions and prefetches: the header fields of a request."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from web.http import negotiation
from web.http.negotiation import (
    MAX_FIELD,
    MAX_ITEMS,
    EntityTags,
    Representation,
    is_prefetch,
    list_of,
)

JSON, TEXT = Representation.JSON, Representation.TEXT

SPACE = st.text(" \t", max_size=2)
TAG = st.text([chr(c) for c in range(0x21, 0x7F) if chr(c) != '"'] + ["\xfc", "\xff"], max_size=8)
TAGS = st.lists(st.tuples(st.booleans(), st.integers(0, 99).map(str) | TAG), min_size=1, max_size=5)


def preferred(lines: list[str]) -> Representation:
    """The representation for ``Accept`` with these lines."""
    return negotiation.preferred(list_of(lines))


@given(TAGS, st.data())
def test_etags_are_parsed_whatever_their_spaces_and_lines(
    tags: list[tuple[bool, str]], data: st.DataObject
) -> None:
    values = [""]
    for weak, tag in tags:
        # Empty elements are allowed, and a list may continue in another line of the same field.
        if values[-1]:
            separator = data.draw(SPACE) + "," + data.draw(SPACE)
            if data.draw(st.booleans()):
                values.append("")
            else:
                values[-1] += separator + data.draw(st.sampled_from(["", ",", ", ,"]))
        values[-1] += ("W/" if weak else "") + f'"{tag}"'
    read = EntityTags(values)
    assert not read.malformed
    assert not read.any
    assert read.tags == {tag for _, tag in tags}
    for index in range(100):
        assert read.name(index) == ((False, str(index)) in tags)
        assert read.hold(str(index)) == ((False, str(index)) in tags or (True, str(index)) in tags)


@pytest.mark.parametrize("suffix", ["", "-text", "-uint64", "-uint64-text"])
def test_the_etag_of_each_representation_has_the_index(suffix: str) -> None:
    for field in (f'"7{suffix}"', f'"x", "7{suffix}"'):
        tags = EntityTags([field])
        assert tags.name(7)
        assert tags.hold(f"7{suffix}")
        assert not tags.hold(f"7{suffix}-text")
    assert not EntityTags([f'W/"7{suffix}"']).name(7)
    assert not EntityTags([f'"07{suffix}"']).name(7)


def test_a_field_past_its_bound_is_ignored() -> None:
    assert preferred(["text/plain"]) is TEXT
    assert preferred(["text/plain" + "," * MAX_FIELD]) is JSON
    tags = EntityTags(['"7"' + "," * MAX_FIELD])
    assert tags.malformed
    assert not tags.name(7)


@pytest.mark.parametrize("field", ["*", " * ", "\t*"])
def test_a_star_matches_any_index(field: str) -> None:
    tags = EntityTags([field])
    assert tags.name(7)
    assert tags.hold("7")


@pytest.mark.parametrize(
    "field",
    [
        "7",
        '"7',
        '7"',
        "'7'",
        'w/"7"',
        'W/ "7"',
        'W"7"',
        '"7" "8"',
        '"7""8"',
        '"7"; "8"',
        '"7", 8',
        '"7", *',
        '*, "7"',
        "**",
        '"7\x7f"',
        '"7 "',
        '"\x00"',
        '"7"\n',
        '"\uff17"',
    ],
)
def test_a_malformed_field_matches_nothing(field: str) -> None:
    tags = EntityTags([field])
    assert tags.malformed
    assert not any(tags.name(n) or tags.hold(str(n)) for n in range(10))


@pytest.mark.parametrize("field", ["", " ", ",", ", ,"])
def test_an_empty_list_matches_nothing(field: str) -> None:
    tags = EntityTags([field])
    assert not any(tags.name(n) or tags.hold(str(n)) for n in range(10))


@pytest.mark.parametrize("tag", ['"07"', '"+7"', '"7 "', '"7.0"', '"\u0667"', '"0x7"'])
def test_a_tag_is_compared_as_text_not_as_a_number(tag: str) -> None:
    tags = EntityTags([tag])
    assert not tags.name(7)
    assert not tags.hold("7")


@given(st.lists(st.text(), max_size=3), st.integers(0))
@example(['"' * 5_000], 0)
@example([", " * 5_000 + "x"], 0)
@example(['"7"' + " " * 5_000 + "x"], 7)
def test_no_value_breaks_the_parsing_of_etags(values: list[str], index: int) -> None:
    tags = EntityTags(values)
    assert tags.name(index) <= tags.hold(str(index))
    assert not (tags.malformed and tags.hold(str(index)))


@pytest.mark.parametrize("tags", ['"7", "8"', '"8","7"'])
def test_a_list_of_tags_past_its_bound_is_malformed(tags: str) -> None:
    fill = '"' + "x" * (MAX_FIELD - len(tags) - 4) + '", '
    assert EntityTags([fill + tags]).name(7)
    assert EntityTags(["x" + fill + tags]).malformed


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_list_with_too_many_items_is_ignored(separator: str) -> None:
    for count, wanted in ((MAX_ITEMS - 1, TEXT), (MAX_ITEMS, JSON)):
        assert preferred(["text/plain" + separator * count]) is wanted
    assert not EntityTags(['"7"' + "," * (MAX_ITEMS - 1)]).malformed
    assert EntityTags(['"7"' + "," * MAX_ITEMS]).malformed


# Accept


def test_an_accept_past_its_bound_is_ignored() -> None:
    field = "text/plain".rjust(MAX_FIELD)
    assert preferred([field]) is TEXT
    assert preferred([" " + field]) is JSON


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("text/plain", TEXT),
        ("text/*", TEXT),
        ("application/*", JSON),
        ("TEXT/Plain", TEXT),
        ("text/plain; charset=utf-8", TEXT),
        ("text/html", JSON),
        ("image/png, text/plain", TEXT),
        ("text/plain, application/json", JSON),
        ("text/plain, */*", JSON),
        ("text/plain, */*;q=0.9", TEXT),
        ("text/plain;q=0.5, application/json;q=0.4", TEXT),
        ("text/plain;q=0.4, application/json;q=0.5", JSON),
        ("text/plain;q=0.001", TEXT),
        ("text/plain;q=0", JSON),
        ("application/json;q=0", JSON),
        ("application/json;q=0, */*", TEXT),
        ("text/plain;q=0, text/*", JSON),
        ("text/*;q=0.3, text/plain;q=0.8, application/json;q=0.5", TEXT),
        ("*/*, text/*;q=0.5, application/*;q=0.1", TEXT),
        ("*/*;q=0.1, application/*;q=0.2, text/*;q=0.3", TEXT),
        ("text/plain, application/json;q=1", JSON),
        ("text/plain ; q=0.5 , application/json ; q=0.4", TEXT),
        ("text/plain;q=1.000, application/json;q=0.999", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
    ],
)
def test_the_client_gets_the_representation_it_prefers(accept: str, wanted: Representation) -> None:
    assert preferred([accept]) is wanted


def test_a_request_without_accept_gets_json() -> None:
    assert preferred([]) is JSON


def test_several_accept_lines_are_one_list() -> None:
    assert preferred(["application/json;q=0.1", "text/plain"]) is TEXT


QUALITY = st.integers(0, 1000).map(lambda thousandths: f"{thousandths / 1000:.3f}")


@given(QUALITY, QUALITY)
def test_the_higher_quality_wins_and_json_wins_a_tie(json: str, text: str) -> None:
    accept = f"text/plain;q={text}, application/json;q={json}"
    assert preferred([accept]) is (TEXT if float(text) > float(json) else JSON)


@given(st.lists(st.text(string.printable) | st.text(), max_size=3))
def test_no_value_breaks_the_parsing_of_accept(accept: list[str]) -> None:
    assert preferred(accept) in Representation


# Prefetch


@pytest.mark.parametrize(
    "purpose",
    [
        "prefetch",
        "Prefetch",
        "prefetch;prerender",
        "prefetch; anonymous-client-ip",
        " prefetch ",
        "preview",
    ],
)
def test_a_prefetch_is_recognized(purpose: str) -> None:
    assert is_prefetch([purpose])
    assert is_prefetch(["", purpose])


@pytest.mark.parametrize("purpose", ["", "previewing", "prefetching", "no-prefetch"])
def test_other_purposes_are_not_a_prefetch(purpose: str) -> None:
    assert not is_prefetch([purpose])


def test_a_request_without_a_purpose_is_not_a_prefetch() -> None:
    assert not is_prefetch([])
