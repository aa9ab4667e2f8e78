"""``python -m web`` runs the server."""

from web.server import main

main()
