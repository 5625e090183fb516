# Sourced by the scripts beside it.
RUN=/run/machineos
DATA=/mnt/data
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin

# say WORDS: a line on every console, with the uptime. The host shows these when a wait of its own expires.
say() {
    read -r now _ </proc/uptime
    read -r ttys </sys/class/tty/console/active
    for tty in $ttys; do printf 'machineos: [%6.2f] %s\n' "$now" "$*" >"/dev/$tty"; done
}
