# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables are shared with the files sourced beside it
# What `pptp-fast doctor` says of Debian's server: all of it well, and a wrong password.
# Sourced by `lib/case`.

doctor_healthy() {
    write_client_files ours 128 plain
    remember client
    server_up pptpd mschap-v2 128 plain
    run_doctor
    # 1: a tunnel works, and there is something to remark, such as a slow guest that loses packets.
    ((client_status <= 1)) || fail "status $client_status"
    local phase
    for phase in TCP control call GRE LCP authentication MPPE addresses 'path MTU'; do
        expect_log client "ok      $phase "
    done
    expect_log client 'vendor "linux"'
    expect_log client 'MPPE 128-bit stateless; we offered 128 bit, stateless; they 128 bit'
    expect_log client '1500 octets outside, 1456 inside'
    check_nothing_left client
    server_down pptpd
}

doctor_wrong_password() {
    write_client_files ours 128 plain guessed
    remember client
    server_up pptpd mschap-v2 128 plain
    run_doctor
    expect_status 19 "$client_status"
    expect_log client 'E=691: the password is wrong, or there is no user "mia"'
    check_nothing_left client
    server_down pptpd
}

run_doctor() {
    client_status=0
    in_end client timeout 120 pptp-fast doctor test2 >"$results/client.log" 2>&1 ||
        client_status=$?
}
