NAME=machineos
ID=machineos
ID_LIKE=debian
VERSION_ID=1
PRETTY_NAME="machineos 1 (Debian bookworm)"
