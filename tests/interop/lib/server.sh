# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables are shared with the files sourced beside it
# The server's end: its files, and the verbs to start and stop pptpd with pppd (`pptpd`), pptp-fast
# with its own configuration (`ours`) and pptp-fast with pptpd's files (`ours-pptpd`).
# Sourced by `case`.

# server_up WHO AUTHENTICATION ENCRYPTION HEADERS
server_up() {
    local who=$1
    note "the server ($who) starts"
    write_in server /etc/ppp/chap-secrets <<<"mia zidler mia123 *"
    write_in server /etc/ppp/pap-secrets <<<"mia zidler mia123 *"
    pptpd_conf | write_in server /etc/pptpd.conf
    pptpd_options "$@" | write_in server /etc/ppp/pptpd-options
    our_config "$@" | write_in server /etc/pptp-fast/server.toml
    : >"$results/server.log"
    remember server
    case $who in
    pptpd)
        shield_real_peer server
        in_end server pptpd --fg --conf /etc/pptpd.conf --pidfile /run/pptpd.pid \
            >"$results/server.pptpd.log" 2>&1 &
        ;;
    ours)
        in_end server pptp-fast serve --config /etc/pptp-fast/server.toml \
            >"$results/server.log" 2>&1 &
        ;;
    ours-pptpd)
        in_end server pptp-fast serve --config /etc/pptpd.conf >"$results/server.log" 2>&1 &
        ;;
    esac
    server_process=$!
    wait_for 20 "the server to listen" server_listens_or_is_dead
    kill -0 "$server_process" 2>/dev/null || fail "the server ended instead of listening"
}

server_listens_or_is_dead() {
    listens_in server 1723 || ! kill -0 "$server_process" 2>/dev/null
}

server_down() {
    note "the server ($1) ends"
    local status=0
    case $1 in
    pptpd)
        signal_in server TERM pptpd
        wait "$server_process" || true
        signal_in server TERM pptpctrl
        ;;
    *)
        signal_in server TERM pptp-fast
        wait "$server_process" || status=$?
        expect_status 0 "$status"
        check_nothing_left server
        ;;
    esac
}

pptpd_conf() {
    cat <<END
option /etc/ppp/pptpd-options
localip $tunnel_server
remoteip $tunnel_client
END
}

pptpd_options() {
    local who=$1 authentication=$2 encryption=$3 headers=$4
    cat <<END
name zidler
debug
dump
lock
ms-dns $tunnel_server
ms-wins $tunnel_server
END
    [[ $who != pptpd ]] || echo "logfile $results/server.log"
    case $authentication in
    pap) printf '%s\n' require-pap refuse-chap refuse-mschap refuse-mschap-v2 ;;
    chap-md5) printf '%s\n' require-chap refuse-pap refuse-mschap refuse-mschap-v2 ;;
    mschap) printf '%s\n' require-mschap refuse-pap refuse-chap refuse-mschap-v2 ;;
    eap) printf '%s\n' require-eap refuse-pap refuse-chap refuse-mschap refuse-mschap-v2 ;;
    mschap-v2) printf '%s\n' require-mschap-v2 refuse-pap refuse-chap refuse-mschap ;;
    esac
    case $encryption in
    none) echo nomppe ;;
    stateful)
        printf '%s\n' require-mppe-128 mppe-stateful
        [[ $who == pptpd ]] || echo mppe-prefer-stateful
        ;;
    *) echo "require-mppe-$encryption" ;;
    esac
    header_options "$headers"
}

our_config() {
    local authentication=$2 encryption=$3 method=$2 mppe
    [[ $authentication != chap-md5 ]] || method=chap
    case $encryption in
    none) mppe='mode = "deny"' ;;
    stateful) mppe=$'strengths = [128]\nstateful = true\nprefer_stateful = true' ;;
    *) mppe="strengths = [$encryption]" ;;
    esac
    cat <<END
[auth]
name = "zidler"
require = ["$method"]
[mppe]
$mppe
[ppp]
dns = ["$tunnel_server"]
[pool]
local = "$tunnel_server"
remote = "$tunnel_client"
[log]
debug = true
${our_dataplane:-}
END
}
