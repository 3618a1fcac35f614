//! How a control message reads in a log: the dialect of accel-ppp, whose operators know it.

use std::fmt;

use super::messages::{
    IncomingCallReply, IncomingCallRequest, Message, OutgoingCallReply, OutgoingCallRequest,
    StartControlConnectionReply, StartControlConnectionRequest, WanErrorNotify,
};

/// The major version, and the minor one where there is one.
struct Version(u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = self.0.to_be_bytes();
        write!(f, "{major}")?;
        if minor != 0 {
            write!(f, ".{minor}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[PPTP ")?;
        match self {
            Self::StartControlConnectionRequest(m) => start_request(f, m),
            Self::StartControlConnectionReply(m) => start_reply(f, m),
            Self::StopControlConnectionRequest(m) => {
                write!(f, "Stop-Ctrl-Conn-Request <Reason {}>", m.reason.0)
            }
            Self::StopControlConnectionReply(m) => write!(
                f,
                "Stop-Ctrl-Conn-Reply <Result {}> <Error {}>",
                m.result.0, m.error.0
            ),
            Self::EchoRequest(m) => write!(f, "Echo-Request <Identifier {:x}>", m.identifier),
            Self::EchoReply(m) => write!(f, "Echo-Reply <Identifier {:x}>", m.identifier),
            Self::OutgoingCallRequest(m) => outgoing_request(f, m),
            Self::OutgoingCallReply(m) => outgoing_reply(f, m),
            Self::IncomingCallRequest(m) => incoming_request(f, m),
            Self::IncomingCallReply(m) => incoming_reply(f, m),
            Self::IncomingCallConnected(m) => write!(
                f,
                "Incoming-Call-Connected <Peer-Call-ID {:x}> <Speed {}> <Window-Size {}> \
                 <Delay {}> <Framing {}>",
                m.peer_call_id, m.connect_speed, m.receive_window, m.transmit_delay, m.framing
            ),
            Self::CallClearRequest(m) => write!(f, "Call-Clear-Request <Call-ID {:x}>", m.call_id),
            Self::CallDisconnectNotify(m) => write!(
                f,
                "Call-Disconnect-Notify <Call-ID {:x}> <Result {}> <Error {}> <Cause {}>",
                m.call_id, m.result.0, m.error.0, m.cause_code
            ),
            Self::WanErrorNotify(m) => wan_error(f, m),
            // Its contents mean nothing in a VPN, and accel-ppp leaves them out.
            Self::SetLinkInfo(_) => f.write_str("Set-Link-Info"),
        }?;
        f.write_str("]")
    }
}

fn start_request(f: &mut fmt::Formatter<'_>, m: &StartControlConnectionRequest) -> fmt::Result {
    write!(
        f,
        "Start-Ctrl-Conn-Request <Version {}> <Framing {}> <Bearer {}> <Max-Chan {}>",
        Version(m.version),
        m.framing,
        m.bearer,
        m.maximum_channels
    )
}

fn start_reply(f: &mut fmt::Formatter<'_>, m: &StartControlConnectionReply) -> fmt::Result {
    write!(
        f,
        "Start-Ctrl-Conn-Reply <Version {}> <Result {}> <Error {}> <Framing {}> <Bearer {}> \
         <Max-Chan {}>",
        Version(m.version),
        m.result.0,
        m.error.0,
        m.framing,
        m.bearer,
        m.maximum_channels
    )
}

fn outgoing_request(f: &mut fmt::Formatter<'_>, m: &OutgoingCallRequest) -> fmt::Result {
    write!(
        f,
        "Outgoing-Call-Request <Call-ID {:x}> <Call-Serial {:x}> <Min-BPS {}> <Max-BPS {}> \
         <Bearer {:x}> <Framing {:x}> <Window-Size {}> <Delay {}>",
        m.call_id,
        m.call_serial_number,
        m.minimum_bps,
        m.maximum_bps,
        m.bearer,
        m.framing,
        m.receive_window,
        m.processing_delay
    )
}

fn outgoing_reply(f: &mut fmt::Formatter<'_>, m: &OutgoingCallReply) -> fmt::Result {
    write!(
        f,
        "Outgoing-Call-Reply <Call-ID {:x}> <Peer-Call-ID {:x}> <Result {}> <Error {}> <Cause {}> \
         <Speed {}> <Window-Size {}> <Delay {}> <Channel {:x}>",
        m.call_id,
        m.peer_call_id,
        m.result.0,
        m.error.0,
        m.cause_code,
        m.connect_speed,
        m.receive_window,
        m.processing_delay,
        m.physical_channel_id
    )
}

fn incoming_request(f: &mut fmt::Formatter<'_>, m: &IncomingCallRequest) -> fmt::Result {
    write!(
        f,
        "Incoming-Call-Request <Call-ID {:x}> <Call-Serial {:x}> <Bearer {}> <Channel {:x}> \
         <Dialed {}> <Dialing {}>",
        m.call_id,
        m.call_serial_number,
        m.bearer,
        m.physical_channel_id,
        m.dialed_number,
        m.dialing_number
    )
}

fn incoming_reply(f: &mut fmt::Formatter<'_>, m: &IncomingCallReply) -> fmt::Result {
    write!(
        f,
        "Incoming-Call-Reply <Call-ID {:x}> <Peer-Call-ID {:x}> <Result {}> <Error {}> \
         <Window-Size {}> <Delay {}>",
        m.call_id, m.peer_call_id, m.result.0, m.error.0, m.receive_window, m.transmit_delay
    )
}

fn wan_error(f: &mut fmt::Formatter<'_>, m: &WanErrorNotify) -> fmt::Result {
    write!(
        f,
        "WAN-Error-Notify <Peer-Call-ID {:x}> <CRC {}> <Framing {}> <Hardware {}> <Buffer {}> \
         <Time-out {}> <Alignment {}>",
        m.peer_call_id,
        m.crc_errors,
        m.framing_errors,
        m.hardware_overruns,
        m.buffer_overruns,
        m.time_out_errors,
        m.alignment_errors
    )
}
