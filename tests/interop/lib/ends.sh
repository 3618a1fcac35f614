# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables are shared with the files sourced beside it
# The two ends of a case, named `client` and `server`, joined by a virtual Ethernet cable:
# 10.77.0.2 and 10.77.0.1. Sourced by `case`; needs $scratch, $peers and $results.

client_address=10.77.0.2
server_address=10.77.0.1
# What the server gives the tunnel's two ends, and a network behind the server.
tunnel_client=192.168.254.231
tunnel_server=192.168.254.230
behind_server=192.168.2.1

open_ends() {
    open_end server
    open_end client
    await_end server
    await_end client
    ip link add name cable-s netns "$(end_pid server)" type veth \
        peer name cable-c netns "$(end_pid client)"
    in_end server ip address add "$server_address/24" dev cable-s
    in_end client ip address add "$client_address/24" dev cable-c
    in_end server ip link set cable-s up
    in_end client ip link set cable-c up
    in_end server ip address add "$behind_server/32" dev lo
    in_end server tcpdump -U -s 256 -i cable-s -w - 'tcp port 1723 or proto gre' \
        >"$results/wire.pcap" 2>"$scratch/tcpdump" &
    wait_for 20 "the capture to start" grep -q listening "$scratch/tcpdump"
}

open_end() {
    local end=$1
    mkdir "$scratch/$end"
    unshare --net --mount --pid --fork --kill-child=KILL \
        "$interop/lib/end" "$scratch/$end" "$peers" "$results/$end.syslog" \
        2>"$scratch/$end/errors" &
    echo $! >"$scratch/$end/starter"
}

await_end() {
    wait_for 20 "the $1's namespaces" end_is_ready_or_dead "$1"
    [[ -e $scratch/$1/ready ]] || fail "no $1: $(cat "$scratch/$1/errors")"
}

end_is_ready_or_dead() {
    [[ -e $scratch/$1/ready ]] || ! kill -0 "$(cat "$scratch/$1/starter")" 2>/dev/null
}

# Kills the first process of each end; the kernel ends all others of its namespaces with it.
close_ends() {
    local end
    for end in client server; do
        if [[ -e $scratch/$end/pid ]]; then
            kill -KILL "$(end_pid "$end")" 2>/dev/null || true
        fi
    done
}

# Linux answers a raw GRE socket's overflow with ICMP protocol-unreachable, and at this error both
# pptp-linux and pptpd hang up. An emulated machine is slow enough for that to happen, so an end
# that runs one of them keeps these messages to itself.
shield_real_peer() {
    in_end "$1" nft -f - <<'END'
table inet shield {
    chain out {
        type filter hook output priority 0
        icmp type destination-unreachable icmp code prot-unreachable drop
    }
}
END
}

end_pid() { cat "$scratch/$1/pid"; }

# in_end END COMMAND...: runs a command in an end.
in_end() {
    local end=$1
    shift
    nsenter --target "$(end_pid "$end")" --net --mount --pid -- "$@"
}

# write_in END FILE: standard input becomes a file that only root can read.
write_in() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    in_end "$1" sh -c 'umask 077; mkdir -p "${0%/*}"; cat >"$0"' "$2"
}

# signal_in END SIGNAL NAME: to every process of that name; an end sees only its own.
signal_in() { in_end "$1" busybox killall -q "-$2" "$3" || true; }

runs_in() { in_end "$1" busybox pidof "$2" >/dev/null; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local limit_s=$1 what=$2 waited=0
    shift 2
    until "$@"; do
        if ((waited >= limit_s * 5)); then
            fail "waited $limit_s s for $what"
        fi
        sleep 0.2
        waited=$((waited + 1))
    done
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# complain WHAT: the case fails, and goes on to find out more.
complain() {
    echo "FAILED: $*" >&2
    touch "$scratch/complaints"
}

skip() {
    echo "SKIPPED: $*" >&2
    exit 77
}

note() { echo "[$SECONDS s] $*"; }
