"""The application: a page that says which servers answered, and counts its visits in the database."""

import os

import redis

database = redis.Redis(host="router", socket_connect_timeout=5, socket_timeout=5, decode_responses=True)


def application(environ, start_response):
    web, app = environ.get("HTTP_X_WEB", "-"), os.environ["HOSTNAME"]
    try:
        visits = database.incr("visits")
        primary = database.config_get("syslog-ident")["syslog-ident"]
        status, text = "200 OK", f"web {web}, app {app}, database {primary}, visit {visits}\n"
    except redis.RedisError as error:
        status, text = "503 Service Unavailable", f"web {web}, app {app}, no database: {error}\n"
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]
