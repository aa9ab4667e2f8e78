"""``python -m web`` runs the server."""

from web.server import main

if __name__ == "__main__":
    main()
