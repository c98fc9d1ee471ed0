#!/bin/sh
# OpenVPN asks whether a client may use an address: learn-address add|update ADDRESS[@VLAN] NAME, or delete ADDRESS.
# OpenVPN drops the frame unless this succeeds. On a segment this holds each client to its own hardware address.
set -eu

[ "$1" = delete ] && exit 0
members=/etc/drawbridge/members
grep -qxF "${2%@*} $3" $members && exit 0
# The hosts behind a bridge have unknown addresses: allow every address that no listed owner has.
grep -qxF "* $3" $members || exit 1
! grep -q "^${2%@*} " $members
