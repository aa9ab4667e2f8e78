"""What a line of a log says to programs: the name of the event, and its fields.

The words are for people; with ``FIB_LOG_FORMAT=json`` both are in the line.
"""


def event(name: str, **fields: object) -> dict[str, object]:
    """What to give a logger as ``extra``."""
    return {"event": name, "fields": fields}
