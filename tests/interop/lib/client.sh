# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables are shared with the files sourced beside it
# The client's end: its files, and the verbs `up` and `down` for pptp-linux with pppd (`pppd`) and
# for pptp-fast (`ours`). Both read the same files, those of the PPTP client how-to that these
# cases follow. Sourced by `case`.

# write_client_files WHO ENCRYPTION HEADERS [PASSWORD]
write_client_files() {
    local who=$1 encryption=$2 headers=$3 password=${4:-mia123}
    write_in client /etc/ppp/chap-secrets <<<"mia zidler $password *"
    write_in client /etc/ppp/pap-secrets <<<"mia zidler $password *"
    client_options "$encryption" "$headers" "$who" | write_in client /etc/ppp/options.pptp
    peers_file "$who" | write_in client /etc/ppp/peers/test2
    write_in client /etc/ppp/ip-up <<<'#!/bin/sh
[ -x /etc/ppp/ip-up.local ] && /etc/ppp/ip-up.local "$@"
exit 0'
    write_in client /etc/ppp/ip-down <<<'#!/bin/sh
[ -x /etc/ppp/ip-down.local ] && /etc/ppp/ip-down.local "$@"
exit 0'
    # ipparam (the sixth argument) is the network behind the server.
    # shellcheck disable=SC2016  # expanded when the script runs
    write_in client /etc/ppp/ip-up.local <<<'#!/bin/sh
PATH=/sbin:/bin:/usr/sbin:/usr/bin
busybox route add -net $6 gw $5 netmask 255.255.255.0
echo "UP $*" >>/var/log/ip-scripts.log'
    # shellcheck disable=SC2016
    write_in client /etc/ppp/ip-down.local <<<'#!/bin/sh
PATH=/sbin:/bin:/usr/sbin:/usr/bin
busybox route del -net $6 gw $5 netmask 255.255.255.0 2>/dev/null
echo "DOWN $*" >>/var/log/ip-scripts.log
exit 0'
    in_end client chmod 755 /etc/ppp/{ip-up,ip-down,ip-up.local,ip-down.local}
}

# The file that pptp-command writes. The options file comes last, so its ipparam is the one that
# counts.
peers_file() {
    cat <<'END'
#
# PPTP Tunnel configuration for tunnel test2
# Server IP: 10.77.0.1
#
name mia
remotename zidler
ipparam test2
file /etc/ppp/options.pptp
END
    if [[ $1 == pppd ]]; then
        # What pptp-command did by starting pptp itself.
        echo 'pty "pptp 10.77.0.1 --nolaunchpppd"'
    fi
}

client_options() {
    local encryption=$1 headers=$2 who=$3
    cat <<'END'
name mia
lock
dump
logfd 2
debug
#logfile /var/log/pptpd.log
noauth
#require-mschap-v2
END
    case $encryption in
    none) echo nomppe ;;
    stateful)
        printf '%s\n' require-mppe-128 mppe-stateful
        [[ $who == pppd ]] || echo mppe-prefer-stateful
        ;;
    *) echo "require-mppe-$encryption" ;;
    esac
    cat <<'END'
#nomppe
#noccp
END
    header_options "$headers"
    echo "ipparam 192.168.2.0"
}

# plain: nothing compressed, as in the how-to; short: RFC 1661 6.5 and 6.6; all: pppd's defaults,
# which also offer Van Jacobson's, BSD and Deflate compression.
header_options() {
    case $1 in
    plain) printf '%s\n' novj novjccomp nopcomp noaccomp nobsdcomp nodeflate ;;
    short) printf '%s\n' novj novjccomp nobsdcomp nodeflate ;;
    all) ;;
    esac
}

# Ours returns when the tunnel is up, pppd is watched until it says so.
client_up() {
    note "the client ($1) starts"
    case $1 in
    ours)
        run_client_to_its_end ours
        ((client_status == 0)) || fail "pptp-fast up test2: exit status $client_status"
        ;;
    pppd)
        shield_real_peer client
        in_end client pppd call test2 nodetach >"$results/client.log" 2>&1 &
        pppd_client=$!
        wait_for 60 "pppd's tunnel" pppd_is_up_or_dead
        kill -0 "$pppd_client" 2>/dev/null || fail "pppd ended instead of coming up"
        ;;
    esac
}

pppd_is_up_or_dead() {
    grep -q 'Script /etc/ppp/ip-up finished' "$results/client.log" ||
        ! kill -0 "$pppd_client" 2>/dev/null
}

run_client_to_its_end() {
    local status=0
    case $1 in
    ours) in_end client timeout 90 pptp-fast up test2 >"$results/client.log" 2>&1 || status=$? ;;
    pppd)
        in_end client timeout 90 pppd call test2 nodetach >"$results/client.log" 2>&1 ||
            status=$?
        ;;
    esac
    client_status=$status
}

client_down() {
    note "the client ($1) ends"
    case $1 in
    ours)
        in_end client timeout 30 pptp-fast down test2 >>"$results/client.log" 2>&1 ||
            fail "pptp-fast down test2: exit status $?"
        ;;
    pppd)
        signal_in client TERM pppd
        wait "$pppd_client" || true
        ;;
    esac
}
