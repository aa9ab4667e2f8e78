"""The same application and store on stock uvicorn, without fibcore's protocol.

python -m tests.support.stock, with fibcore's settings in the environment.
"""

import uvicorn
import uvloop

from fibcore.appliance import logs, process
from fibcore.appliance.settings import Settings, gather, home
from web.app import create_app
from web.http.answers import SERVERS_OWN
from web.service import Service


async def serve() -> None:
    settings = Settings.of(gather(folder=home()))
    opener = settings.opener()
    opener.stand_by(lambda _: None)
    service = Service(settings, opener.open)
    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        headers=[(name.decode(), value.decode()) for name, value in SERVERS_OWN],
    )
    async with service:
        inherited = process.inherited_socket()
        await uvicorn.Server(config).serve(sockets=[inherited] if inherited else None)


if __name__ == "__main__":
    logs.set_up("%(message)s")
    uvloop.run(serve())
