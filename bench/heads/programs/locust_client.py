"""Sends requests with the two kinds of users of locust: CASES=... locust -f locust_client.py KIND

Each line of CASES is a case, METHOD|PATH|NAME|VALUE|BODY. All are sent twice.
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
    """Uses requests."""

    tasks = [ask]  # noqa: RUF012 - locust's way


class FastHttp(FastHttpUser):
    """Uses geventhttpclient."""

    tasks = [ask]  # noqa: RUF012 - locust's way
