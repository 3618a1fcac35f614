# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables are shared with the files sourced beside it
# What our client says when something outside it is wrong: the message must name the cause.
# Sourced by `lib/case`.

unreachable_server() {
    write_client_files ours 128 plain
    remember client
    run_client_to_its_end ours
    expect_status 16 "$client_status"
    expect_log client "$server_address"
    check_nothing_left client
}

# The control connection works and no GRE arrives: the commonest fault of PPTP in the field.
gre_blocked() {
    write_client_files ours 128 plain
    remember client
    server_up pptpd mschap-v2 128 plain
    # Dropped where it arrives: a filter at the sender would tell it.
    local end
    for end in client server; do
        in_end "$end" nft -f - <<'END'
table inet block {
    chain in { type filter hook input priority 0; meta l4proto gre drop; }
}
END
    done
    run_client_to_its_end ours
    expect_status 10 "$client_status"
    expect_log client 'GRE'
    expect_log client 'protocol 47'
    check_nothing_left client
    server_down pptpd
}

# Kernels from 6.6 on can forbid io_uring, and container runtimes do.
no_io_uring() {
    write_client_files ours 128 plain
    remember client
    server_up pptpd mschap-v2 128 plain
    local setting=/proc/sys/kernel/io_uring_disabled before
    [[ -e $setting ]] || skip "this kernel has no $setting"
    # It holds for the whole machine: only a guest, or a machine made for tests, is disturbed.
    [[ -n ${PPTP_FAST_IN_GUEST:-}${CI:-} ]] || skip "it would forbid io_uring to others here"
    before=$(cat "$setting")
    echo 2 >"$setting"
    run_client_to_its_end ours
    echo "$before" >"$setting"
    ((client_status != 0)) || fail "it came up without io_uring"
    expect_log client 'io_uring'
    check_nothing_left client
    server_down pptpd
}

not_root() {
    remember client
    server_up pptpd mschap-v2 128 plain
    local status=0
    echo mia123 >"$scratch/password"
    in_end client setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all \
        timeout 60 pptp-fast up --server "$server_address" --user mia \
        --password-file "$scratch/password" >"$results/client.log" 2>&1 || status=$?
    ((status != 0)) || fail "it came up without any privilege"
    expect_log client 'CAP_NET_ADMIN'
    expect_log client 'CAP_NET_RAW'
    check_nothing_left client
    server_down pptpd
}
