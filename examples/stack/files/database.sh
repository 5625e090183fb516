# A Redis server, and the Sentinel that watches it and the others: two of three agree on a new primary.
# At the first start db1 is the primary. What Sentinel decides later stands in the two files, which it writes itself.
set -e
cd /data
# In db1 itself the name is there twice.
first=$(getent hosts db1 | sed -n '1s/ .*//p')
if [ ! -e sentinel.conf ]; then
    cat >redis.conf <<END
dir /data
appendonly yes
protected-mode no
syslog-ident $HOSTNAME
END
    [ "$HOSTNAME" = db1 ] || echo "replicaof $first 6379" >>redis.conf
    cat >sentinel.conf <<END
dir /tmp
port 26379
protected-mode no
sentinel monitor main $first 6379 2
sentinel down-after-milliseconds main 5000
sentinel failover-timeout main 10000
END
fi
redis-server redis.conf &
exec redis-sentinel sentinel.conf
