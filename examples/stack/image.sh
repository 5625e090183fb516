#!/bin/sh
# Make the image `stack`, which all containers share, of Debian's packages, and give it to the Docker that this shell is
# set to. MongoDB isn't in Debian: Redis with Sentinel is the replica set here, and HAProxy its router.
set -e
mmdebstrap --variant=minbase \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include=apache2,haproxy,redis-server,redis-sentinel,gunicorn,python3-redis \
    trixie - | docker import - stack
