//! Far more than a tunnel carries, both ways: it stands, it says what it dropped, and it carries on
//! as if nothing had been.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use sim::lab::{Lab, Side, ready};
use sim::tunnel::serve;

const SERVER_IP: &str = "192.168.254.230";
const CLIENT_IP: &str = "192.168.254.231";
const PORT: u16 = 5000;
const FLOOD: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// Both ends ask every second, and give up after two questions without an answer.
const LINK: &str = "require-mppe-128\nlcp-echo-interval 1\nlcp-echo-failure 2\ndebug\n";
const TRANSFER_BYTES: usize = 4 << 20;

#[test]
fn a_flooded_tunnel_stands_and_says_what_it_dropped() {
    if !ready() {
        return;
    }
    let lab = Lab::new();
    lab.write("ppp/chap-secrets", "mia zidler mia123 *\n");
    let options = lab.write("ppp/options.pptp", &format!("name mia\nnoauth\n{LINK}"));
    let peer = format!(
        "# Server IP: 10.77.0.1\nremotename zidler\nfile {}\n",
        options.display()
    );
    lab.write("ppp/peers/test", &peer);
    let options = format!("name zidler\nrequire-mschap-v2\n{LINK}");
    let options = lab.write("pptpd-options", &options);
    let conf = format!(
        "option {}\nlocalip {SERVER_IP}\nremoteip {CLIENT_IP}\ndebug\n",
        options.display()
    );
    let conf = lab.write("pptpd.conf", &conf).display().to_string();
    let mut server = serve(&lab, &conf);
    let mut client = lab.start(Side::Client, &["up", "test", "--foreground"]);
    client.wait_for(" is active on ", 10);

    let floods = [
        (Side::Client, CLIENT_IP, SERVER_IP),
        (Side::Server, SERVER_IP, CLIENT_IP),
    ]
    .map(|(side, from, to)| lab.in_namespace(side, move || flood(from, to)));
    // Neither receives for a while, and then must find its way back into what it missed.
    std::thread::sleep(PAUSE);
    for end in [&client, &server] {
        end.signal(Signal::SIGSTOP);
        std::thread::sleep(PAUSE);
        end.signal(Signal::SIGCONT);
    }
    // Echoes of each end, asked and answered while the flood lasts.
    for _ in 0..4 {
        client.wait_for("rcvd [LCP EchoRep", 4);
        server.wait_for("rcvd [LCP EchoRep", 4);
    }
    let [up, down] = floods.map(|flood| flood.join().expect("a flood ends"));
    println!("sent {up} packets up, {down} down");

    // What the kernel drops is looked at once a second.
    std::thread::sleep(Duration::from_millis(1500));
    let tunnel = status(&lab, Side::Client);
    let sessions = status(&lab, Side::Server);
    println!("client: {tunnel}\nserver: {sessions}");
    assert_eq!(tunnel["state"], "up");
    assert!(
        tunnel["uptime_s"].as_u64() >= Some(FLOOD.as_secs()),
        "it came up again"
    );
    assert_eq!(sessions["sessions"][0]["state"], "up");
    assert_accounted(up, &tunnel, &sessions, &sessions["sessions"][0]);
    assert_accounted(down, &sessions, &tunnel, &tunnel);

    traffic_flows(&lab);
    let down = lab.run(Side::Client, &["down", "test"]);
    assert_eq!(down.status.code(), Some(0), "{}", text(&down));
    let (_, log) = client.wait(10);
    assert!(!log.contains("No response to"), "{log}");
}

/// Sends as fast as the socket takes packets; how many it took. They arrive at an open port that
/// nobody reads.
fn flood(from: &str, to: &str) -> u64 {
    let socket = UdpSocket::bind((from, PORT)).expect("an address of the tunnel");
    socket.connect((to, PORT)).expect("a route");
    // The kernel drops what does not fit, so that little of it is held up.
    setsockopt(&socket, sockopt::RcvBuf, &0).expect("a small queue");
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < FLOOD {
        // Refused at first, until the other end's port is open.
        sent += u64::from(socket.send(&[7; 1200]).is_ok());
    }
    sent
}

/// Every packet that did not arrive was counted where it was dropped, but for the few of other
/// programs and those on their way.
fn assert_accounted(sent: u64, from: &Value, to: &Value, receiver: &Value) {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let arrived = count(&receiver["received_packets"]);
    let dropped = |side: &Value, name: &str| count(&side["drops"][name]);
    let known = arrived
        + dropped(from, "tun_queue")
        + dropped(from, "send_refused")
        + dropped(to, "receive_queue");
    assert!(arrived > sent / 1000, "{arrived} of {sent} packets arrived");
    assert!(
        dropped(from, "tun_queue") > 0,
        "nothing was dropped: this was no flood"
    );
    assert!(
        dropped(to, "receive_queue") > 0,
        "the pause went by unnoticed"
    );
    let missing = sent.abs_diff(known);
    assert!(
        missing <= sent / 50 + 1000,
        "of {sent} packets {missing} are unaccounted for"
    );
}

fn traffic_flows(lab: &Lab) {
    let mut ping = lab.command(Side::Client, "ping");
    let ping = ping.args(["-c5", "-i0.2", "-W1", SERVER_IP]).output();
    let ping = ping.expect("ping starts");
    assert!(text(&ping).contains(" 0% packet loss"), "{}", text(&ping));
    let received = lab.in_namespace(Side::Server, || {
        let listener = TcpListener::bind((SERVER_IP, PORT)).expect("an address of the tunnel");
        let mut all = Vec::new();
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.read_to_end(&mut all).expect("a stream");
        all
    });
    let begun = Instant::now();
    let sent = lab.in_namespace(Side::Client, move || {
        let mut stream = loop {
            match TcpStream::connect((SERVER_IP, PORT)) {
                Ok(stream) => break stream,
                Err(error) => assert!(begun.elapsed().as_secs() < 5, "{error}"),
            }
        };
        let all: Vec<u8> = (0..TRANSFER_BYTES).map(|i| (i % 251) as u8).collect();
        stream.write_all(&all).expect("the other end reads");
        all
    });
    let (sent, received) = (
        sent.join().expect("sends"),
        received.join().expect("receives"),
    );
    assert!(sent == received);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

fn status(lab: &Lab, side: Side) -> Value {
    let output = lab.run(side, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    match side {
        Side::Client => status["tunnels"][0].clone(),
        Side::Server => status["server"].clone(),
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}
