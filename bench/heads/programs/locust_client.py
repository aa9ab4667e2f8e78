"""Asks with locust's two kinds of users: CASES=... locust -f locust_client.py KIND

Each case, METHOD|PATH|NAME|VALUE|BODY, is a line of CASES. They are asked twice.
"""

import os

from locust import FastHttpUser, HttpUser


def ask(user: HttpUser | FastHttpUser) -> None:
    for case in os.environ["CASES"].splitlines() * 2:
        method, path, name, value, body = case.split("|")
        headers = {name: value} if name else {}
        user.client.request(method, path, headers=headers, data=body or None)
    user.environment.runner.quit()


class Http(HttpUser):
    """Asks by way of requests."""

    tasks = [ask]  # noqa: RUF012 - locust's way


class FastHttp(FastHttpUser):
    """Asks by way of geventhttpclient."""

    tasks = [ask]  # noqa: RUF012 - locust's way
