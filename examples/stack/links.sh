#!/bin/sh
# The form of before 2015: no network, but a link, which sets variables with the address of each exposed port.
set -e
docker run -d --name counter --expose 6379 stack redis-server --protected-mode no
docker run --rm --link counter:db stack sh -c '
    echo "DB_PORT_6379_TCP_ADDR=$DB_PORT_6379_TCP_ADDR"
    redis-cli -h "$DB_PORT_6379_TCP_ADDR" -p "$DB_PORT_6379_TCP_PORT" incr visits
    redis-cli -h db incr visits'
docker rm -f counter
