//! The fields of each control message, in the order in which they stand on the wire (RFC 2637 2.1
//! to 2.15).

use bytes::BufMut;

use super::codes::{
    DisconnectResult, EchoResult, ErrorCode, IncomingCallResult, OutgoingCallResult, StartResult,
    StopReason, StopResult,
};
use super::{Reader, Text, WireError};

/// Framing Capabilities and Framing Type: asynchronous (2.1).
pub const FRAMING_ASYNCHRONOUS: u32 = 1;
/// Framing Capabilities and Framing Type: synchronous (2.1).
pub const FRAMING_SYNCHRONOUS: u32 = 2;
/// Bearer Capabilities and Bearer Type: analog (2.1).
pub const BEARER_ANALOG: u32 = 1;
/// Bearer Capabilities and Bearer Type: digital (2.1).
pub const BEARER_DIGITAL: u32 = 2;

/// One field of fixed length.
trait Field: Sized {
    const LEN: usize;
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError>;
    fn put(&self, buffer: &mut &mut [u8]);
}

macro_rules! number_field {
    ($($number:ident $take:ident $put:ident;)*) => {$(
        impl Field for $number {
            const LEN: usize = size_of::<Self>();

            fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                reader.$take()
            }

            fn put(&self, buffer: &mut &mut [u8]) {
                buffer.$put(*self);
            }
        }
    )*};
}

number_field! {
    u16 u16 put_u16;
    u32 u32 put_u32;
}

macro_rules! code_field {
    ($($code:ident)*) => {$(
        impl Field for $code {
            const LEN: usize = 1;

            fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                reader.u8().map(Self)
            }

            fn put(&self, buffer: &mut &mut [u8]) {
                buffer.put_u8(self.0);
            }
        }
    )*};
}

code_field! {
    StartResult StopReason StopResult EchoResult OutgoingCallResult IncomingCallResult
    DisconnectResult ErrorCode
}

impl<const N: usize> Field for Text<N> {
    const LEN: usize = N;

    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.array().map(Self::from_octets)
    }

    fn put(&self, buffer: &mut &mut [u8]) {
        buffer.put_slice(self.octets());
    }
}

/// The table below makes a struct of each message, and of all of them the enum. `| N` behind a
/// field stands for N reserved octets there: sent as zeros, passed over when received.
macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $message_type:literal $name:ident {
            $($(#[$field_doc:meta])* $field:ident: $kind:ty $(| $reserved:literal)?;)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $kind,)*
            }

            impl $name {
                const LEN: usize = 0 $(+ <$kind as Field>::LEN $(+ $reserved)?)*;

                fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                    $(
                        let $field = <$kind as Field>::take(reader)?;
                        $(reader.take($reserved)?;)?
                    )*
                    Ok(Self { $($field),* })
                }

                fn put(&self, buffer: &mut &mut [u8]) {
                    $(
                        self.$field.put(buffer);
                        $(buffer.put_bytes(0, $reserved);)?
                    )*
                }
            }

            impl From<$name> for Message {
                fn from(message: $name) -> Self {
                    Self::$name(message)
                }
            }
        )*

        /// Any control message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Message {
            $($(#[$doc])* $name($name),)*
        }

        /// Whether a Control Message Type is one of the fifteen.
        pub(super) fn is_known(message_type: u16) -> bool {
            [$($message_type),*].contains(&message_type)
        }

        impl Message {
            /// Octets behind the header.
            pub(super) const fn fields_len(&self) -> usize {
                match self {
                    $(Self::$name(_) => $name::LEN,)*
                }
            }

            /// The Control Message Type.
            #[must_use]
            pub const fn message_type(&self) -> u16 {
                match self {
                    $(Self::$name(_) => $message_type,)*
                }
            }

            /// Reads what stands behind the header of a message of this type.
            pub(super) fn parse_fields(
                message_type: u16,
                fields: &[u8],
            ) -> Result<Self, WireError> {
                let reader = &mut Reader::new(fields);
                match message_type {
                    $($message_type => $name::take(reader).map(Self::$name),)*
                    other => Err(WireError::BadValue {
                        field: "Control Message Type",
                        value: other.into(),
                    }),
                }
            }

            /// Writes what stands behind the header.
            pub(super) fn emit_fields(&self, mut buffer: &mut [u8]) {
                match self {
                    $(Self::$name(message) => message.put(&mut buffer),)*
                }
            }
        }
    };
}

messages! {
    /// Opens a control connection (2.1).
    1 StartControlConnectionRequest {
        /// Major version in the high octet, minor in the low one: 0x0100.
        version: u16 | 2;
        /// Bits of `FRAMING_*`.
        framing: u32;
        /// Bits of `BEARER_*`.
        bearer: u32;
        /// PPP sessions that the sender supports; 0 from a PNS.
        maximum_channels: u16;
        /// Of the sender.
        firmware_revision: u16;
        /// DNS name of the sender.
        host_name: Text<64>;
        /// Name of the implementation.
        vendor_name: Text<64>;
    }

    /// Answers a Start-Control-Connection-Request (2.2).
    2 StartControlConnectionReply {
        /// Major version in the high octet, minor in the low one: 0x0100.
        version: u16;
        /// Whether the control connection stands.
        result: StartResult;
        /// Which general error.
        error: ErrorCode;
        /// Bits of `FRAMING_*`.
        framing: u32;
        /// Bits of `BEARER_*`.
        bearer: u32;
        /// PPP sessions that the sender supports; 0 from a PNS.
        maximum_channels: u16;
        /// Of the sender.
        firmware_revision: u16;
        /// DNS name of the sender.
        host_name: Text<64>;
        /// Name of the implementation.
        vendor_name: Text<64>;
    }

    /// Closes a control connection, and every call with it (2.3).
    3 StopControlConnectionRequest {
        /// Why.
        reason: StopReason | 3;
    }

    /// Answers a Stop-Control-Connection-Request (2.4).
    4 StopControlConnectionReply {
        /// Whether it is closed.
        result: StopResult;
        /// Which general error.
        error: ErrorCode | 2;
    }

    /// Asks whether the control connection lives (2.5).
    5 EchoRequest {
        /// Comes back in the reply.
        identifier: u32;
    }

    /// It lives (2.6).
    6 EchoReply {
        /// That of the request.
        identifier: u32;
        /// Whether the request was good.
        result: EchoResult;
        /// Which general error.
        error: ErrorCode | 2;
    }

    /// Asks for a call: what every VPN client sends (2.7).
    7 OutgoingCallRequest {
        /// What the sender will know the call by, and wants in the GRE header.
        call_id: u16;
        /// For logs.
        call_serial_number: u16;
        /// Lowest acceptable speed, bits/s.
        minimum_bps: u32;
        /// Highest acceptable speed, bits/s.
        maximum_bps: u32;
        /// Bits of `BEARER_*`.
        bearer: u32;
        /// Bits of `FRAMING_*`.
        framing: u32;
        /// Packets that the sender buffers.
        receive_window: u16;
        /// Tenths of a second.
        processing_delay: u16;
        /// Digits that count in `phone_number`.
        phone_number_len: u16 | 2;
        /// Where to call; empty in a VPN.
        phone_number: Text<64>;
        /// More of where to call.
        subaddress: Text<64>;
    }

    /// Answers an Outgoing-Call-Request (2.8).
    8 OutgoingCallReply {
        /// What the sender will know the call by, and wants in the GRE header.
        call_id: u16;
        /// That of the request.
        peer_call_id: u16;
        /// Whether there is a call.
        result: OutgoingCallResult;
        /// Which general error.
        error: ErrorCode;
        /// Q.931 cause code, or 0.
        cause_code: u16;
        /// Bits/s.
        connect_speed: u32;
        /// Packets that the sender buffers.
        receive_window: u16;
        /// Tenths of a second.
        processing_delay: u16;
        /// Of the sender's choice.
        physical_channel_id: u32;
    }

    /// A call has come in at an access concentrator (2.9).
    9 IncomingCallRequest {
        /// What the sender will know the call by.
        call_id: u16;
        /// For logs.
        call_serial_number: u16;
        /// Bits of `BEARER_*`.
        bearer: u32;
        /// Of the sender's choice.
        physical_channel_id: u32;
        /// Digits that count in `dialed_number`.
        dialed_number_len: u16;
        /// Digits that count in `dialing_number`.
        dialing_number_len: u16;
        /// Who was called.
        dialed_number: Text<64>;
        /// Who called.
        dialing_number: Text<64>;
        /// More of who was called.
        subaddress: Text<64>;
    }

    /// Answers an Incoming-Call-Request (2.10).
    10 IncomingCallReply {
        /// What the sender will know the call by.
        call_id: u16;
        /// That of the request.
        peer_call_id: u16;
        /// Whether the call is to be answered.
        result: IncomingCallResult;
        /// Which general error.
        error: ErrorCode;
        /// Packets that the sender buffers.
        receive_window: u16;
        /// Tenths of a second.
        transmit_delay: u16 | 2;
    }

    /// An incoming call was answered (2.11).
    11 IncomingCallConnected {
        /// What the receiver knows the call by.
        peer_call_id: u16 | 2;
        /// Bits/s.
        connect_speed: u32;
        /// Packets that the sender buffers.
        receive_window: u16;
        /// Tenths of a second.
        transmit_delay: u16;
        /// Bits of `FRAMING_*`.
        framing: u32;
    }

    /// Asks for the end of a call (2.12).
    12 CallClearRequest {
        /// What the sender knows the call by.
        call_id: u16 | 2;
    }

    /// A call has ended (2.13).
    13 CallDisconnectNotify {
        /// What the sender knows the call by.
        call_id: u16;
        /// Why.
        result: DisconnectResult;
        /// Which general error.
        error: ErrorCode;
        /// Q.931 cause code, or 0.
        cause_code: u16 | 2;
        /// For logs.
        call_statistics: Text<128>;
    }

    /// Errors on the line behind an access concentrator, since the call began (2.14).
    14 WanErrorNotify {
        /// What the receiver knows the call by.
        peer_call_id: u16 | 2;
        /// Frames with a bad CRC.
        crc_errors: u32;
        /// Frames badly framed.
        framing_errors: u32;
        /// Hardware receive buffer overruns.
        hardware_overruns: u32;
        /// Software receive buffer overruns.
        buffer_overruns: u32;
        /// Time-outs.
        time_out_errors: u32;
        /// Alignment errors.
        alignment_errors: u32;
    }

    /// PPP options that the device behind an access concentrator must know (2.15).
    15 SetLinkInfo {
        /// What the receiver knows the call by.
        peer_call_id: u16 | 2;
        /// Asynchronous control character map for what is sent to the client.
        send_accm: u32;
        /// Asynchronous control character map for what comes from the client.
        receive_accm: u32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::HEADER_LEN;
    use super::*;

    #[test]
    fn every_message_is_as_long_as_the_rfc_draws_it() {
        // RFC 2637 2.1 to 2.15, octets of the drawings.
        let lens = [
            156, 156, 16, 16, 16, 20, 168, 32, 220, 24, 28, 16, 148, 40, 24,
        ];
        let zeros = [0; 256];
        for (message_type, len) in (1..).zip(lens) {
            let message = Message::parse_fields(message_type, &zeros).unwrap();
            assert_eq!(message.message_type(), message_type);
            assert_eq!(HEADER_LEN + message.fields_len(), len, "{message:?}");
        }
    }
}
