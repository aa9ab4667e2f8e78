"""What a log line holds for programs: the name of the event, and its fields.

The message is for people; with ``FIB_LOG_FORMAT=json`` the line has both.
"""


def event(name: str, **fields: object) -> dict[str, object]:
    """The ``extra`` of a log record."""
    return {"event": name, "fields": fields}
