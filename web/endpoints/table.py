"""The table of endpoints.

The protocol and the Starlette application both read it. To add an endpoint, write a module and list
its row here.
"""

from typing import Final

from web.endpoints import openapi
from web.endpoints.current import CURRENT
from web.endpoints.health import HEALTH
from web.endpoints.metrics import METRICS
from web.endpoints.next import NEXT
from web.endpoints.number import NUMBER
from web.endpoints.pages import is_page
from web.endpoints.previous import PREVIOUS
from web.endpoints.status import STATUS
from web.http.routing import Table

_ROWS: Final = (CURRENT, NEXT, PREVIOUS, NUMBER, HEALTH, METRICS, STATUS)

TABLE: Final = Table((*_ROWS, openapi.endpoint(_ROWS)), is_page)
