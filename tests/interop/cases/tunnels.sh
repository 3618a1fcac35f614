# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables are shared with the files sourced beside it
# Cases with both a client and a server. Sourced by `lib/case`; the arguments are explained in
# `cases/list`.

tunnel() {
    local client=$1 server=$2 authentication=$3 encryption=$4 headers=$5
    write_client_files "$client" "$encryption" "$headers"
    remember client
    server_up "$server" "$authentication" "$encryption" "$headers"
    client_up "$client"
    if [[ $client == ours ]]; then
        [[ $(tail -n 1 "$results/client.log") == \
            "Tunnel test2 is active on ppp0. Local IP Address: $tunnel_client" ]] ||
            complain "the last line of client.log is not the how-to's"
        expect_our_status
    fi
    expect_encryption "$encryption"
    expect_route_of_ip_up
    check_traffic
    check_ipv6
    in_end client ping -n -q -c 1 -W 5 "$behind_server" ||
        complain "the network behind the server does not answer"
    client_down "$client"
    check_client_left_nothing "$client"
    expect_ip_down
    server_down "$server"
}

# pptp-linux leaves its host route to the server behind, pppd a database: known, and not our case.
check_client_left_nothing() {
    [[ $1 != ours ]] || check_nothing_left client
}

expect_our_status() {
    in_end client pptp-fast status --json | tee "$results/status.json"
    local word
    for word in test2 ppp0 "$tunnel_client" "$tunnel_server"; do
        grep -Fq "\"$word\"" "$results/status.json" || complain "status --json does not name $word"
    done
}

expect_route_of_ip_up() {
    local deadline=$((SECONDS + 10))
    until has_route_of_ip_up; do
        if ((SECONDS >= deadline)); then
            complain "no route to 192.168.2.0/24, which ip-up.local should have made"
            return
        fi
        sleep 0.2
    done
}

has_route_of_ip_up() { in_end client ip route show 192.168.2.0/24 | grep -q 'dev ppp0'; }

expect_ip_down() {
    in_end client cat /var/log/ip-scripts.log >"$results/ip-scripts.log" || true
    local end
    for end in UP DOWN; do
        grep -Eq "^$end ppp0 [^ ]* [0-9]+ $tunnel_client $tunnel_server 192.168.2.0\$" \
            "$results/ip-scripts.log" || complain "no line $end of the ip scripts is as pppd's"
    done
}

# The how-to prints what its tunnel logs when it comes up; ours must print every line of it, with
# the numbers that differ from run to run left open.
how_to_log() {
    write_client_files ours 128 plain
    remember client
    server_up pptpd mschap-v2 128 plain
    client_up ours
    local hex='[0-9a-f]+' id='id=0x[0-9a-f]+' pattern
    while read -r pattern; do
        expect_log client "^$pattern\$"
    done <<END
sent \[LCP ConfReq $id <asyncmap 0x0> <magic 0x$hex>\]
rcvd \[LCP ConfReq $id <asyncmap 0x0> <auth chap MS-v2> <magic 0x$hex>\]
sent \[LCP ConfAck $id <asyncmap 0x0> <auth chap MS-v2> <magic 0x$hex>\]
rcvd \[LCP ConfAck $id <asyncmap 0x0> <magic 0x$hex>\]
rcvd \[CHAP Challenge $id <$hex>, name = "zidler"\]
sent \[CHAP Response $id <$hex>, name = "mia"\]
rcvd \[CHAP Success $id "S=[0-9A-F]{40} M=.*"\]
CHAP authentication succeeded
sent \[CCP ConfReq $id <mppe \+H -M \+S -L -D -C>\]
rcvd \[CCP ConfReq $id <mppe \+H -M \+S -L -D -C>\]
sent \[CCP ConfAck $id <mppe \+H -M \+S -L -D -C>\]
rcvd \[CCP ConfAck $id <mppe \+H -M \+S -L -D -C>\]
MPPE 128-bit stateless compression enabled
sent \[IPCP ConfReq $id <addr 0.0.0.0>\]
rcvd \[IPCP ConfReq $id <addr 192.168.254.230>\]
sent \[IPCP ConfAck $id <addr 192.168.254.230>\]
rcvd \[IPCP ConfNak $id <addr 192.168.254.231>\]
sent \[IPCP ConfReq $id <addr 192.168.254.231>\]
rcvd \[IPCP ConfAck $id <addr 192.168.254.231>\]
local +IP address 192.168.254.231
remote IP address 192.168.254.230
Tunnel test2 is active on ppp0. Local IP Address: 192.168.254.231
END
    client_down ours
    check_nothing_left client
    server_down pptpd
}

wrong_password() {
    local client=$1 server=$2
    write_client_files "$client" 128 plain wrong-one
    remember client
    server_up "$server" mschap-v2 128 plain
    run_client_to_its_end "$client"
    expect_status 19 "$client_status"
    expect_log client 'rcvd \[CHAP Failure .*E=691'
    check_client_left_nothing "$client"
    server_down "$server"
}

# The client's options demand encryption and the server's know none.
mppe_refused() {
    local client=$1 server=$2
    write_client_files "$client" 128 plain
    remember client
    server_up "$server" mschap-v2 none plain
    run_client_to_its_end "$client"
    expect_status 10 "$client_status"
    expect_log client 'MPPE required but peer refused'
    check_client_left_nothing "$client"
    server_down "$server"
}

# pppd's option vrf: the interface, its routes and the environment of the scripts.
vrf() {
    modprobe -q vrf || true
    in_end client ip link add red type vrf table 100 || skip "this kernel has no VRF"
    in_end client ip link set red up
    write_client_files ours 128 plain
    {
        client_options 128 plain ours
        printf '%s\n' "vrf red" defaultroute
    } | write_in client /etc/ppp/options.pptp
    # shellcheck disable=SC2016  # expanded when the script runs
    write_in client /etc/ppp/ip-up <<<'#!/bin/sh
echo "VRF=$VRF" >/var/log/vrf'
    in_end client ip route add default via "$server_address"
    remember client
    server_up pptpd mschap-v2 128 plain
    client_up ours
    [[ $(in_end client ip -o link show ppp0) == *"master red"* ]] || complain "ppp0 is not in the VRF"
    [[ $(in_end client ip route show table 100) == *"default dev ppp0"* ]] ||
        complain "no default route in the table of the VRF"
    [[ $(in_end client ip route show default) == *"dev cable-c"* ]] ||
        complain "the default route outside the VRF has gone"
    in_end client ping -n -q -c 2 -W 5 -I red "$tunnel_server" ||
        complain "the server does not answer in the VRF"
    wait_for 10 "ip-up to be told" in_end client grep -qx 'VRF=red' /var/log/vrf
    client_down ours
    check_nothing_left client
    server_down pptpd
}
