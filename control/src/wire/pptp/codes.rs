//! Result, reason and error codes (RFC 2637 2.2 to 2.16), each of the message that it belongs to,
//! with the RFC's words.

use std::fmt;

/// One table a code: a one-octet newtype, its known values, and their words in `Display`.
macro_rules! codes {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($value:literal $known:ident $words:literal)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub u8);

        impl $name {
            $(
                #[doc = concat!($words, ".")]
                pub const $known: Self = Self($value);
            )*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($value => f.write_str($words),)*
                    other => write!(f, "unknown code {other}"),
                }
            }
        }
    )*};
}

codes! {
    /// Result Code of Start-Control-Connection-Reply (2.2).
    StartResult {
        1 SUCCESSFUL "successful channel establishment"
        2 GENERAL_ERROR "general error"
        3 ALREADY_EXISTS "a command channel already exists"
        4 NOT_AUTHORIZED "the requester is not authorized to establish a command channel"
        5 VERSION_NOT_SUPPORTED "the protocol version of the requester is not supported"
    }

    /// Reason of Stop-Control-Connection-Request (2.3).
    StopReason {
        1 NONE "general request to clear the control connection"
        2 STOP_PROTOCOL "it cannot support the version of the protocol"
        3 STOP_LOCAL_SHUTDOWN "it is being shut down"
    }

    /// Result Code of Stop-Control-Connection-Reply (2.4).
    StopResult {
        1 OK "control connection closed"
        2 GENERAL_ERROR "general error"
    }

    /// Result Code of Echo-Reply (2.6).
    EchoResult {
        1 OK "the Echo-Reply is valid"
        2 GENERAL_ERROR "general error"
    }

    /// Result Code of Outgoing-Call-Reply (2.8).
    OutgoingCallResult {
        1 CONNECTED "call established with no errors"
        2 GENERAL_ERROR "general error"
        3 NO_CARRIER "no carrier detected"
        4 BUSY "busy signal detected"
        5 NO_DIAL_TONE "lack of a dial tone"
        6 TIME_OUT "call not established within the time allotted"
        7 DO_NOT_ACCEPT "call administratively prohibited"
    }

    /// Result Code of Incoming-Call-Reply (2.10).
    IncomingCallResult {
        1 CONNECT "the incoming call should be answered"
        2 GENERAL_ERROR "general error"
        3 DO_NOT_ACCEPT "the incoming call should not be accepted"
    }

    /// Result Code of Call-Disconnect-Notify (2.13).
    DisconnectResult {
        1 LOST_CARRIER "loss of carrier"
        2 GENERAL_ERROR "general error"
        3 ADMIN_SHUTDOWN "call disconnected for administrative reasons"
        4 REQUEST "call disconnected on request (Call-Clear-Request)"
    }

    /// General Error Code of every reply (2.16); it counts where the result is "general error".
    ErrorCode {
        0 NONE "no general error"
        1 NOT_CONNECTED "no control connection exists yet for this pair"
        2 BAD_FORMAT "the length is wrong or the magic cookie is incorrect"
        3 BAD_VALUE "a field value was out of range or a reserved field was not zero"
        4 NO_RESOURCE "insufficient resources to handle this command now"
        5 BAD_CALL_ID "the call ID is invalid in this context"
        6 PAC_ERROR "a generic vendor-specific error occurred in the PAC"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_code_has_words_and_an_unknown_one_its_number() {
        assert_eq!(
            OutgoingCallResult::DO_NOT_ACCEPT.to_string(),
            "call administratively prohibited"
        );
        assert_eq!(OutgoingCallResult(0).to_string(), "unknown code 0");
        assert_eq!(
            ErrorCode(4).to_string(),
            "insufficient resources to handle this command now"
        );
    }
}
