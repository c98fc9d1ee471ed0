@echo off
rem Sets what the gateway has pushed on the tunnel's adapter; -down.cmd undoes it.
rem It ends with an error if a step fails: OpenVPN then reports it and does not start a tunnel that carries nothing.
setlocal EnableExtensions EnableDelayedExpansion
if not defined dev exit /b 2

rem Addresses
if defined ifconfig_local (
  netsh interface ipv4 set address name="%dev%" source=static address=%ifconfig_local% mask=%ifconfig_netmask% store=active || exit /b 1
)
if defined ifconfig_ipv6_local (
  netsh interface ipv6 add address interface="%dev%" address=%ifconfig_ipv6_local%/%ifconfig_ipv6_netbits% store=active || exit /b 1
)

rem Routes through the tunnel; OpenVPN numbers the pushed routes from 1
for /L %%n in (1,1,99) do (
  if defined route_network_%%n (
    route add !route_network_%%n! mask !route_netmask_%%n! !route_gateway_%%n! || exit /b 1
  )
  if defined route_ipv6_network_%%n (
    netsh interface ipv6 add route prefix=!route_ipv6_network_%%n! interface="%dev%" nexthop=!route_ipv6_gateway_%%n! store=active || exit /b 1
  )
)
if defined drawbridge_redirect (
  route add %trusted_ip% mask 255.255.255.255 %route_net_gateway% || exit /b 1
  route add 0.0.0.0 mask 128.0.0.0 %route_vpn_gateway% || exit /b 1
  route add 128.0.0.0 mask 128.0.0.0 %route_vpn_gateway% || exit /b 1
)
if defined drawbridge_block_ipv6 (
  netsh interface ipv6 add route prefix=2000::/3 interface="%dev%" nexthop=%ifconfig_ipv6_remote% store=active || exit /b 1
)

rem DNS
for /L %%n in (1,1,99) do (
  if defined foreign_option_%%n (
    for /F "tokens=2,3" %%a in ("!foreign_option_%%n!") do (
      if "%%a"=="DNS" netsh interface ipv4 add dnsservers name="%dev%" address=%%b validate=no || exit /b 1
    )
  )
)
exit /b 0
