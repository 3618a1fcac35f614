# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables are shared with the files sourced beside it
# The PPTP client how-to, followed literally: from an empty /etc/ppp through the dialogue of
# `pptp-command setup` to a ping over the route that its own ip-up.local adds. Sourced by `lib/case`.

server_name=zidler.ece.uic.edu

# how_to TYPED: the dialogue and the start are typed into a pipe (`pipe`) or at a terminal
# (`terminal`).
how_to() {
    local typed=$1
    begin_how_to
    "set_up_by_$typed"
    expect_files_of_the_dialogue
    write_how_to_files
    remember client
    server_up pptpd mschap-v2 128 plain
    note "pptp-command starts the tunnel ($typed)"
    "start_by_$typed"
    tr -d '\r' <"$results/start.log" >"$results/client.log"
    expect_log client "^Tunnel test2 is active on ppp0\. Local IP Address: $tunnel_client\$"
    expect_log client '^MPPE 128-bit stateless compression enabled$'
    if [[ $typed == terminal ]]; then
        [[ $(in_end client ip route show 192.168.3.0/24) == *"dev ppp0"* ]] ||
            complain "no route to 192.168.3.0/24, which was typed into the dialogue"
    fi
    check_how_to_tunnel
    in_end client pptp-command status || complain "pptp-command status: exit status $?"
    in_end client pptp-command stop >>"$results/client.log" 2>&1 ||
        complain "pptp-command stop: exit status $?"
    check_nothing_left client
    # The how-to's ip-down.local writes its line, and then empties the log.
    in_end client test -e /var/log/pptpd.log -a ! -s /var/log/pptpd.log ||
        complain "ip-down.local has not emptied /var/log/pptpd.log"
    server_down pptpd
}

# The files that our dialogue wrote, brought up by pptp-linux and pppd as pptp-command did that.
how_to_files_in_pppd() {
    begin_how_to
    set_up_by_pipe
    expect_files_of_the_dialogue
    write_how_to_files
    server_up pptpd mschap-v2 128 plain
    shield_real_peer client
    note "pptp and pppd take the files"
    in_end client pptp "$server_name" --debug call test2 nodetach logfile /var/log/ppp.log \
        >"$results/client.pptp.log" 2>&1 &
    pppd_client=$!
    await_pppd /var/log/ppp.log
    check_how_to_tunnel
    signal_in client TERM pppd
    wait "$pppd_client" || true
    server_down pptpd
}

# The files that our pptpsetup wrote, brought up by `pppd call`, and then by us.
pptpsetup_files_in_pppd() {
    begin_how_to
    in_end client pptpsetup --create test2 --server "$server_name" --username mia \
        --password mia123 --encrypt || fail "pptpsetup: exit status $?"
    in_end client cat /etc/ppp/peers/test2 /etc/ppp/chap-secrets
    remember client
    server_up pptpd mschap-v2 128 plain
    note "we take the files"
    in_end client timeout 90 pptp-fast up test2 >"$results/ours.log" 2>&1 ||
        fail "pptp-fast up: exit status $?: $(tail -n 1 "$results/ours.log")"
    check_traffic
    in_end client pptp-fast down test2 || complain "pptp-fast down: exit status $?"
    check_nothing_left client
    wait_for 20 "the server to let go" server_has_no_tunnel
    shield_real_peer client
    note "pppd takes the files"
    in_end client pppd call test2 nodetach debug logfile /var/log/ppp.log \
        >"$results/client.pppd.log" 2>&1 &
    pppd_client=$!
    await_pppd /var/log/ppp.log
    check_traffic
    signal_in client TERM pppd
    wait "$pppd_client" || true
    server_down pptpd
}

server_has_no_tunnel() { [[ $(in_end server ip -o link show) != *": ppp"* ]]; }

# An empty /etc/ppp, our program under its old names, and a server that has a name.
begin_how_to() {
    in_end client find /etc/ppp -mindepth 1 -delete
    write_in client /etc/hosts <<<"127.0.0.1 localhost
$server_address $server_name"
    in_end client chmod 644 /etc/hosts
    mkdir "$scratch/links"
    in_end client pptp-fast install-links "$scratch/links" ||
        fail "pptp-fast install-links: exit status $?"
    PATH=$scratch/links:$PATH
}

# A CHAP secret, a tunnel without routes: one answer a line, as old scripts have it.
set_up_by_pipe() {
    printf '%s\n' \
        1 2 mia zidler mia123 4 \
        4 1 test2 "$server_name" "" mia zidler \
        8 |
        in_end client pptp-command setup >"$results/setup.log" 2>&1 ||
        fail "pptp-command setup: exit status $?"
}

start_by_pipe() {
    in_end client pptp-command start test2 </dev/null >"$results/start.log" 2>&1 ||
        fail "pptp-command start: exit status $?"
}

# The same at a terminal, each answer after its prompt, and with a route in addition.
set_up_by_terminal() {
    open_terminal setup pptp-command setup
    answer '?:' 1
    answer '?:' 2
    answer 'Local Name:' mia
    answer 'Remote Name [PPTP]:' zidler
    answer 'Password:' mia123
    answer '?:' 4
    answer '?:' 4
    answer 'Which configuration would you like to use?:' 1
    answer 'Tunnel Name:' test2
    answer 'Server IP:' "$server_name"
    answer 'route:' 'add -net 192.168.3.0 netmask 255.255.255.0 TUNNEL_DEV'
    answer 'route:' ''
    answer 'Local Name:' mia
    answer 'Remote Name [PPTP]:' zidler
    answer '?:' 8
    close_terminal
    ! grep -q mia123 "$results/setup.log" || complain "the terminal has shown the password"
}

start_by_terminal() {
    open_terminal start pptp-command
    answer 'What task would you like to do?:' 1
    answer 'Start a tunnel to which server?:' 1
    close_terminal
}

# open_terminal NAME COMMAND: runs it in the client's end at a terminal of its own; what that shows
# goes to NAME.log.
open_terminal() {
    local name=$1
    shift
    terminal_log=$results/$name.log terminal_seen=0
    mkfifo "$scratch/$name.keys"
    : >"$terminal_log"
    in_end client script -q -f -e -c "$*" "$terminal_log" \
        <"$scratch/$name.keys" >/dev/null 2>"$results/$name.script.log" &
    terminal=$!
    exec {keys}>"$scratch/$name.keys"
}

# answer PROMPT TEXT: waits until the terminal asks that, and types a line.
answer() {
    wait_for 30 "the prompt '$1'" terminal_asks "$1"
    terminal_seen=$(wc -c <"$terminal_log")
    printf '%s\n' "$2" >&"$keys"
}

# What is new ends in the prompt.
terminal_asks() {
    local shown
    shown=$(tail -c "+$((terminal_seen + 1))" "$terminal_log" | tr -d '\r')
    [[ $shown == *"$1" || $shown == *"$1 " ]]
}

close_terminal() {
    local status=0
    wait "$terminal" || status=$?
    exec {keys}>&-
    ((status == 0)) || fail "it ended at its terminal with exit status $status"
}

expect_files_of_the_dialogue() {
    local expected
    expected=$(printf '%s\n' "name mia" "remotename zidler" "ipparam test2" \
        "file /etc/ppp/options.pptp")
    [[ $(in_end client sed '/^#/d; /^$/d' /etc/ppp/peers/test2) == "$expected" ]] ||
        complain "peers/test2 is not the how-to's: $(in_end client cat /etc/ppp/peers/test2)"
    in_end client grep -Eq "^mia[[:space:]]+zidler[[:space:]]+mia123" /etc/ppp/chap-secrets ||
        complain "chap-secrets has no line for mia and zidler"
    local file
    for file in chap-secrets peers/test2; do
        [[ $(in_end client stat -c %a "/etc/ppp/$file") == 600 ]] ||
            complain "others may read $file"
    done
}

# The options and the scripts that the how-to shows, word for word.
write_how_to_files() {
    write_in client /etc/ppp/options.pptp <"$interop/../howto/options.pptp"
    local name
    for name in ip-up ip-up.local ip-down ip-down.local; do
        awk -v "name=$name" '/^\[shashank@mia ppp\]# cat / { wanted = $NF == name; next } wanted' \
            "$interop/../howto/scripts.txt" | write_in client "/etc/ppp/$name"
        in_end client chmod 755 "/etc/ppp/$name"
    done
}

# pppd's log comes to an end where `pppd` itself says that its script has run.
await_pppd() {
    wait_for 60 "pppd's tunnel" pppd_is_up_or_has_ended "$1"
    in_end client cat "$1" >"$results/client.log"
    kill -0 "$pppd_client" 2>/dev/null || fail "pppd ended instead of coming up"
}

pppd_is_up_or_has_ended() {
    in_end client grep -q 'remote IP address' "$1" 2>/dev/null ||
        ! kill -0 "$pppd_client" 2>/dev/null
}

# The route and the line of ip-up.local, and packets: to the server's end, and beyond.
check_how_to_tunnel() {
    local line="UP ppp0 [^ ]+ [0-9]+ $tunnel_client $tunnel_server 192\.168\.2\.0"
    wait_for 20 "the line of ip-up.local" in_end client grep -Eq "$line\$" /var/log/pptpd.log
    expect_route_of_ip_up
    check_traffic
    in_end client ping -n -q -c 3 -W 5 "$behind_server" ||
        complain "the network behind the server does not answer"
}
