#!/bin/sh
# OpenVPN asks whether an address is a client's: learn-address add|update ADDRESS[@VLAN] NAME, or delete ADDRESS.
# Anything but success makes it drop the frame. On a segment that is how each client is held to its own hardware address.
set -eu

[ "$1" = delete ] && exit 0
members=/etc/drawbridge/members
grep -qxF "${2%@*} $3" $members && exit 0
# A bridge brings its LAN's hosts, whose addresses nobody knows: any but those that are somebody's.
grep -qxF "* $3" $members || exit 1
! grep -q "^${2%@*} " $members
