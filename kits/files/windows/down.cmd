@echo off
rem Undoes what -up.cmd has set: it tries every step, and a step with nothing to undo does not fail.
setlocal EnableExtensions EnableDelayedExpansion
if not defined dev exit /b 2

rem DNS
netsh interface ipv4 delete dnsservers name="%dev%" address=all validate=no

rem Routes through the tunnel
if defined drawbridge_block_ipv6 (
  netsh interface ipv6 delete route prefix=2000::/3 interface="%dev%" nexthop=%ifconfig_ipv6_remote% store=active
)
if defined drawbridge_redirect (
  route delete 128.0.0.0 mask 128.0.0.0 %route_vpn_gateway%
  route delete 0.0.0.0 mask 128.0.0.0 %route_vpn_gateway%
  route delete %trusted_ip% mask 255.255.255.255 %route_net_gateway%
)
for /L %%n in (1,1,99) do (
  if defined route_network_%%n route delete !route_network_%%n! mask !route_netmask_%%n! !route_gateway_%%n!
  if defined route_ipv6_network_%%n (
    netsh interface ipv6 delete route prefix=!route_ipv6_network_%%n! interface="%dev%" nexthop=!route_ipv6_gateway_%%n! store=active
  )
)

rem Addresses
if defined ifconfig_local netsh interface ipv4 delete address name="%dev%" address=%ifconfig_local% store=active
if defined ifconfig_ipv6_local netsh interface ipv6 delete address interface="%dev%" address=%ifconfig_ipv6_local% store=active
exit /b 0
