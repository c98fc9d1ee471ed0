#!/bin/sh
# OpenVPN asks whether an address is a client's: learn-address add|update ADDRESS[@VLAN] NAME, or delete ADDRESS.
# Anything but success makes it drop the frame. On a segment that is how each client is held to its own hardware address.
set -eu

[ "$1" = delete ] && exit 0
exec grep -qxF "${2%@*} $3" /etc/drawbridge/members
