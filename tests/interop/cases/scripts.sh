# shellcheck shell=bash
# shellcheck disable=SC2154  # variables are shared with the files sourced beside it
# pppd's scripts and its dump, by pppd itself and then by us from the same files: the same order, arguments,
# environment and words. Sourced by `lib/case`.

# The server proves who it is, too: so auth-up and auth-down are run.
scripts_as_pppd() {
    write_client_files pppd none plain
    printf '%s\n' linkname office usepeerdns "set COLOUR=blue" "auth" require-mschap-v2 |
        in_end client tee -a /etc/ppp/options.pptp
    in_end client sed -i /^noauth/d /etc/ppp/options.pptp
    write_telling_scripts
    remember client
    server_up pptpd mschap-v2 none plain
    # They begin as the other names do, but each other's passwords are of no use here.
    local secrets=$'mia zidler mia123 *\nzidler mia zid123 *'
    write_in client /etc/ppp/chap-secrets <<<"$secrets"
    write_in server /etc/ppp/chap-secrets <<<"$secrets"
    local who
    for who in pppd ours; do
        in_end client rm -f /var/log/told
        scripts_client_up "$who"
        wait_for 20 "$who's ipv6-up" in_end client grep -q ^ipv6-up /var/log/told
        client_down "$who"
        [[ $who == ours ]] || cp "$results/client.log" "$results/pppd.dump"
        [[ $who == pppd ]] || in_end client cat /var/log/ours.log >"$results/client.log"
        what_was_dumped <"$results/$who.dump" >"$results/dump-$who"
        wait_for 20 "the scripts to end" scripts_have_ended
        in_end client cat /var/log/told >"$results/told-$who.raw"
        what_was_told <"$results/told-$who.raw" >"$results/told-$who"
        order_of_scripts >"$results/order-$who"
    done
    diff -u "$results/told-pppd" "$results/told-ours" ||
        complain "arguments or environment are not pppd's (above)"
    diff -u "$results/order-pppd" "$results/order-ours" || complain "the order is not pppd's (above)"
    diff -u "$results/dump-pppd" "$results/dump-ours" || complain "dump is not pppd's (above)"
    [[ -s $results/dump-ours ]] || complain "there is no dump"
    [[ $(wc -l <"$results/order-ours") == 6 ]] || complain "not every script has been run"
    server_down pptpd
}

# Ours goes to the background, where only its log file tells the rest.
scripts_client_up() {
    if [[ $1 == pppd ]]; then
        client_up pppd
    else
        in_end client timeout 90 pptp-fast up test2 --logfile /var/log/ours.log \
            >"$results/ours.dump" || fail "pptp-fast up: exit status $?"
    fi
}

# One line each: its name, its arguments, the umask, and what else the process has.
write_telling_scripts() {
    local name
    for name in auth-up auth-down ip-pre-up ip-up ip-down ipv6-up ipv6-down; do
        # shellcheck disable=SC2016  # expanded when the script runs
        write_in client "/etc/ppp/$name" <<<'#!/bin/bash
line="${0##*/}|$*|$(umask) $(pwd) $(id -u)|$(env | sort | tr "\n" "|")"
echo "$line" >>/var/log/told'
        in_end client chmod 755 "/etc/ppp/$name"
    done
}

scripts_have_ended() {
    [[ $(in_end client grep -Ec '^(auth|ip|ipv6)-down' /var/log/told) == 3 ]]
}

# Without what a shell adds, and what depends on who is first, IP or IPv6; with a word for what differs
# from run to run: the tty, which is the server for us, its speed, processes, identifiers and what was
# carried. (Since version 2.5 of pppd the scripts of authentication have ipparam, too.)
what_was_told() {
    tr '|' '\n' |
        sed -E -e '/^(PATH|PWD|OLDPWD|SHLVL|_|DEVICE)=/d' \
            -e "s,${server_address//./\\.} 0,TTY," -e 's, (/dev/pts/[0-9]+)? [0-9]{2\,}, TTY,' \
            -e 's/^(ppp0 zidler root TTY) .*/\1/' \
            -e 's/^(SPEED|PPPD_PID|BYTES_SENT|BYTES_RCVD|CONNECT_TIME)=[0-9]+$/\1/' \
            -e 's/fe80::[0-9a-f:]+/LL/g' |
        awk '/^(auth|ip|ipv6)-/ { script = $0 } { print script ": " $0 }' |
        grep -Ev '^ip-(pre-)?up: LL|^ipv6-up: (IP|DNS|USEPEERDNS)|^.*: $' | sort
}

# What `dump` prints, but for where the log goes, and for options of which pppd 2.4.9 prints no name.
what_was_dumped() { grep '# (from ' | grep -Ev '^(nodetach|logf(d|ile) .*|lock|modem)?[[:space:]]+#'; }

# pppd starts ipv6-up whenever IPV6CP is done; the others have their places.
order_of_scripts() {
    sed -nE 's,.*Script /etc/ppp/((auth|ip|ipv6)-[a-z-]+) started.*,\1,p' "$results/client.log" |
        grep -v '^ipv6-up$'
}
