# The scripts in this folder source this file.
RUN=/run/machineos
DATA=/mnt/data
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin

# Whether this is a system container (LXC), as `boot` has found. Its kernel, disks and limits are those of the host.
in_container() { [ -e $RUN/container ]; }

# say WORDS: writes a line with the uptime to every console. The host shows the last lines when it waited in vain.
say() {
    read -r now _ </proc/uptime
    if in_container; then ttys=console; else read -r ttys </sys/class/tty/console/active; fi
    for tty in $ttys; do printf 'machineos: [%6.2f] %s\n' "$now" "$*" >"/dev/$tty"; done
}
