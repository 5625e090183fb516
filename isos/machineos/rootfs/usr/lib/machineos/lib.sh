# Sourced by the scripts beside it.
RUN=/run/machineos
DATA=/mnt/data
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin

# say WORDS: a line on every console, with the uptime. The host shows these when a wait of its own expires.
say() {
    for tty in $(cat /sys/class/tty/console/active); do
        printf 'machineos: [%6.2f] %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*" >"/dev/$tty"
    done 2>/dev/null
}
