# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables are shared with the files sourced beside it
# What a case asks of a tunnel. Sourced by `case`.

# Small and full packets each way, then 5 MB each way over TCP, compared by their SHA-256.
check_traffic() {
    note "ping both ways"
    ping_from client "$tunnel_server" 56
    ping_from server "$tunnel_client" 56
    ping_from client "$tunnel_server" 1300
    ping_from server "$tunnel_client" 1300
    note "5 MB each way"
    head -c 5000000 /dev/urandom >"$scratch/sent"
    transfer client server "$tunnel_server"
    transfer server client "$tunnel_client"
}

ping_from() {
    local end=$1 address=$2 bytes=$3
    in_end "$end" ping -n -q -c 3 -i 0.2 -W 5 -s "$bytes" "$address" ||
        fail "no answer from $address to the $end's ping of $bytes bytes"
}

# Both ends speak IPV6CP unless told otherwise, and answer under the address that they agreed on.
check_ipv6() {
    local remote
    wait_for 10 "IPV6CP to come up" grep -q 'remote LL address fe80::' "$results/server.log"
    remote=$(sed -n 's/.*local  LL address //p' "$results/server.log" | tail -n 1)
    in_end client ping -6 -n -q -c 2 -i 0.2 -W 5 "$remote%ppp0" ||
        complain "no answer from $remote over IPv6"
}

# transfer FROM TO ADDRESS: TO's address in the tunnel.
transfer() {
    local from=$1 to=$2 address=$3 receiver
    [[ -p $scratch/silence ]] || mkfifo "$scratch/silence"
    : >"$scratch/received"
    # A netcat whose own input ends would close the connection before all has come.
    in_end "$to" timeout 65 busybox nc -l -p 5001 <>"$scratch/silence" >"$scratch/received" &
    receiver=$!
    wait_for 20 "a listener on the $to" listens_in "$to" 5001
    in_end "$from" timeout 60 busybox nc "$address" 5001 <"$scratch/sent" >/dev/null ||
        fail "the transfer from $from to $to did not finish"
    wait "$receiver" || fail "the transfer from $from to $to did not arrive"
    local sent received
    sent=$(sha256sum <"$scratch/sent")
    received=$(sha256sum <"$scratch/received")
    [[ $sent == "$received" ]] ||
        fail "5 MB from $from to $to arrived as $(wc -c <"$scratch/received") other bytes"
}

listens_in() { in_end "$1" ss -Hltn "sport = :$2" | grep -q .; }

# expect_log END PATTERN: a line of what that end printed matches the extended expression.
expect_log() {
    grep -Eq -- "$2" "$results/$1.log" || complain "no line of $1.log matches: $2"
}

# Both ends must have agreed on the same encryption, as pppd words it.
expect_encryption() {
    local end
    for end in client server; do
        case $1 in
        none) ! grep -q 'MPPE .* enabled' "$results/$end.log" || complain "$end.log has MPPE" ;;
        40 | 128) expect_log "$end" "MPPE $1-bit stateless compression enabled" ;;
        stateful) expect_log "$end" "MPPE 128-bit stateful compression enabled" ;;
        esac
    done
}

expect_status() {
    [[ $1 == "$2" ]] || complain "exit status $2 where $1 was expected"
}

# remember END / check_nothing_left END: interfaces, routes, rules, DNS, processes and run files
# must be after a tunnel what they were before it.
remember() { snapshot "$1" >"$scratch/$1/before"; }

check_nothing_left() {
    local deadline=$((SECONDS + 10))
    while ((SECONDS < deadline)); do
        snapshot "$1" >"$scratch/$1/after"
        if cmp -s "$scratch/$1/before" "$scratch/$1/after"; then
            return
        fi
        sleep 0.2
    done
    diff -u "$scratch/$1/before" "$scratch/$1/after" || true
    complain "10 s later the $1 still differs from what it was before the tunnel (above)"
}

# It runs inside the end, with few processes of its own: an emulated machine starts them slowly.
snapshot() {
    # shellcheck disable=SC2016
    in_end "$1" bash -c '
        ip -o link show
        ip -4 route show table all
        ip rule show
        cat /etc/resolv.conf
        find /run ! -type d
        for process in /proc/[0-9]*; do
            { read -r name <"$process/comm" && read -r stat <"$process/stat"; } 2>/dev/null ||
                continue
            [[ ${stat##*) } != Z* ]] || continue
            case $name in bash | cat | find | ip | nsenter | sed | sleep | sort) ;;
            *) echo "process $name" ;; esac
        done' | sed -E 's/^([0-9]+: [^:]+):.*/\1/' | sort
}
