# The scripts in this folder source this file.
RUN=/run/machineos
DATA=/mnt/data
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin

# say WORDS: writes a line with the uptime to every console. The host shows the last lines when it waited in vain.
say() {
    read -r now _ </proc/uptime
    read -r ttys </sys/class/tty/console/active
    for tty in $ttys; do printf 'machineos: [%6.2f] %s\n' "$now" "$*" >"/dev/$tty"; done
}
