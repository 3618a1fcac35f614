//! Attributes by the names of the dictionary (RFC 2865 5, RFC 2866 5, RFC 2868, RFC 2869 5,
//! RFC 2548 2, RFC 5176 3.6) and the values of those that are lists of cases.

/// Which attribute: one of the standard ones, or one of a vendor's (RFC 2865 5.26).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Type, 1 to 255.
    Standard(u8),
    /// SMI enterprise number of the vendor, and the vendor's own type.
    Vendor(u32, u8),
}

/// Names each attribute once.
macro_rules! kinds {
    ($($name:ident = $value:expr, $words:literal;)*) => {
        impl Kind {
            $(#[doc = concat!("`", $words, "`.")] pub const $name: Self = $value;)*

            /// The dictionary's name, for those that this project knows.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                $(if self.is(Self::$name) {
                    return Some($words);
                })*
                None
            }
        }
    };
}

const CISCO: u32 = 9;
const MICROSOFT: u32 = 311;
const MIKROTIK: u32 = 14_988;
const WISPR: u32 = 14_122;
const CHILLISPOT: u32 = 14_559;

const fn std(kind: u8) -> Kind {
    Kind::Standard(kind)
}

const fn ms(kind: u8) -> Kind {
    Kind::Vendor(MICROSOFT, kind)
}

kinds! {
    USER_NAME = std(1), "User-Name";
    USER_PASSWORD = std(2), "User-Password";
    CHAP_PASSWORD = std(3), "CHAP-Password";
    NAS_IP_ADDRESS = std(4), "NAS-IP-Address";
    NAS_PORT = std(5), "NAS-Port";
    SERVICE_TYPE = std(6), "Service-Type";
    FRAMED_PROTOCOL = std(7), "Framed-Protocol";
    FRAMED_IP_ADDRESS = std(8), "Framed-IP-Address";
    FRAMED_IP_NETMASK = std(9), "Framed-IP-Netmask";
    FILTER_ID = std(11), "Filter-Id";
    FRAMED_MTU = std(12), "Framed-MTU";
    REPLY_MESSAGE = std(18), "Reply-Message";
    FRAMED_ROUTE = std(22), "Framed-Route";
    STATE = std(24), "State";
    CLASS = std(25), "Class";
    VENDOR_SPECIFIC = std(26), "Vendor-Specific";
    SESSION_TIMEOUT = std(27), "Session-Timeout";
    IDLE_TIMEOUT = std(28), "Idle-Timeout";
    CALLED_STATION_ID = std(30), "Called-Station-Id";
    CALLING_STATION_ID = std(31), "Calling-Station-Id";
    NAS_IDENTIFIER = std(32), "NAS-Identifier";
    PROXY_STATE = std(33), "Proxy-State";
    ACCT_STATUS_TYPE = std(40), "Acct-Status-Type";
    ACCT_DELAY_TIME = std(41), "Acct-Delay-Time";
    ACCT_INPUT_OCTETS = std(42), "Acct-Input-Octets";
    ACCT_OUTPUT_OCTETS = std(43), "Acct-Output-Octets";
    ACCT_SESSION_ID = std(44), "Acct-Session-Id";
    ACCT_AUTHENTIC = std(45), "Acct-Authentic";
    ACCT_SESSION_TIME = std(46), "Acct-Session-Time";
    ACCT_INPUT_PACKETS = std(47), "Acct-Input-Packets";
    ACCT_OUTPUT_PACKETS = std(48), "Acct-Output-Packets";
    ACCT_TERMINATE_CAUSE = std(49), "Acct-Terminate-Cause";
    ACCT_INPUT_GIGAWORDS = std(52), "Acct-Input-Gigawords";
    ACCT_OUTPUT_GIGAWORDS = std(53), "Acct-Output-Gigawords";
    EVENT_TIMESTAMP = std(55), "Event-Timestamp";
    CHAP_CHALLENGE = std(60), "CHAP-Challenge";
    NAS_PORT_TYPE = std(61), "NAS-Port-Type";
    TUNNEL_TYPE = std(64), "Tunnel-Type";
    TUNNEL_MEDIUM_TYPE = std(65), "Tunnel-Medium-Type";
    TUNNEL_CLIENT_ENDPOINT = std(66), "Tunnel-Client-Endpoint";
    TUNNEL_SERVER_ENDPOINT = std(67), "Tunnel-Server-Endpoint";
    EAP_MESSAGE = std(79), "EAP-Message";
    MESSAGE_AUTHENTICATOR = std(80), "Message-Authenticator";
    ACCT_INTERIM_INTERVAL = std(85), "Acct-Interim-Interval";
    NAS_PORT_ID = std(87), "NAS-Port-Id";
    FRAMED_POOL = std(88), "Framed-Pool";
    NAS_IPV6_ADDRESS = std(95), "NAS-IPv6-Address";
    ERROR_CAUSE = std(101), "Error-Cause";
    SESSION_OCTETS_LIMIT = std(227), "Session-Octets-Limit";
    OCTETS_DIRECTION = std(228), "Octets-Direction";
    CISCO_AVPAIR = Self::Vendor(CISCO, 1), "Cisco-AVPair";
    MS_CHAP_RESPONSE = ms(1), "MS-CHAP-Response";
    MS_CHAP_ERROR = ms(2), "MS-CHAP-Error";
    MS_MPPE_ENCRYPTION_POLICY = ms(7), "MS-MPPE-Encryption-Policy";
    MS_MPPE_ENCRYPTION_TYPES = ms(8), "MS-MPPE-Encryption-Types";
    MS_CHAP_CHALLENGE = ms(11), "MS-CHAP-Challenge";
    MS_CHAP_MPPE_KEYS = ms(12), "MS-CHAP-MPPE-Keys";
    MS_MPPE_SEND_KEY = ms(16), "MS-MPPE-Send-Key";
    MS_MPPE_RECV_KEY = ms(17), "MS-MPPE-Recv-Key";
    MS_CHAP2_RESPONSE = ms(25), "MS-CHAP2-Response";
    MS_CHAP2_SUCCESS = ms(26), "MS-CHAP2-Success";
    MS_PRIMARY_DNS_SERVER = ms(28), "MS-Primary-DNS-Server";
    MS_SECONDARY_DNS_SERVER = ms(29), "MS-Secondary-DNS-Server";
    MS_PRIMARY_NBNS_SERVER = ms(30), "MS-Primary-NBNS-Server";
    MS_SECONDARY_NBNS_SERVER = ms(31), "MS-Secondary-NBNS-Server";
    MIKROTIK_RECV_LIMIT = Self::Vendor(MIKROTIK, 1), "Mikrotik-Recv-Limit";
    MIKROTIK_XMIT_LIMIT = Self::Vendor(MIKROTIK, 2), "Mikrotik-Xmit-Limit";
    MIKROTIK_RECV_LIMIT_GIGAWORDS = Self::Vendor(MIKROTIK, 14), "Mikrotik-Recv-Limit-Gigawords";
    MIKROTIK_XMIT_LIMIT_GIGAWORDS = Self::Vendor(MIKROTIK, 15), "Mikrotik-Xmit-Limit-Gigawords";
    MIKROTIK_TOTAL_LIMIT = Self::Vendor(MIKROTIK, 17), "Mikrotik-Total-Limit";
    MIKROTIK_TOTAL_LIMIT_GIGAWORDS = Self::Vendor(MIKROTIK, 18), "Mikrotik-Total-Limit-Gigawords";
    CHILLISPOT_MAX_INPUT_OCTETS = Self::Vendor(CHILLISPOT, 1), "ChilliSpot-Max-Input-Octets";
    CHILLISPOT_MAX_OUTPUT_OCTETS = Self::Vendor(CHILLISPOT, 2), "ChilliSpot-Max-Output-Octets";
    CHILLISPOT_MAX_TOTAL_OCTETS = Self::Vendor(CHILLISPOT, 3), "ChilliSpot-Max-Total-Octets";
    MIKROTIK_RATE_LIMIT = Self::Vendor(MIKROTIK, 8), "Mikrotik-Rate-Limit";
    WISPR_BANDWIDTH_MAX_UP = Self::Vendor(WISPR, 7), "WISPr-Bandwidth-Max-Up";
    WISPR_BANDWIDTH_MAX_DOWN = Self::Vendor(WISPR, 8), "WISPr-Bandwidth-Max-Down";
}

impl Kind {
    const fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Standard(a), Self::Standard(b)) => a == b,
            (Self::Vendor(vendor, a), Self::Vendor(other, b)) => vendor == other && a == b,
            _ => false,
        }
    }
}

/// `Acct-Status-Type` (RFC 2866 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcctStatusType {
    /// A session begins.
    Start = 1,
    /// It is over.
    Stop = 2,
    /// It goes on.
    InterimUpdate = 3,
    /// The server has started.
    AccountingOn = 7,
    /// The server stops.
    AccountingOff = 8,
}

/// `Acct-Terminate-Cause` (RFC 2866 5.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcctTerminateCause {
    /// The client ended it.
    UserRequest = 1,
    /// The way to the client broke.
    LostCarrier = 2,
    /// Nothing was sent for too long.
    IdleTimeout = 4,
    /// It has lasted as long as it may.
    SessionTimeout = 5,
    /// An operator ended it.
    AdminReset = 6,
    /// The server is being stopped.
    AdminReboot = 7,
    /// Something failed here.
    NasError = 9,
    /// It has carried all that it may.
    NasRequest = 10,
    /// It made room for another.
    PortPreempted = 13,
    /// The client asked for what is not given.
    ServiceUnavailable = 15,
    /// The client did not do its part.
    UserError = 17,
}

/// `Error-Cause` (RFC 5176 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCause {
    /// An attribute cannot be changed here.
    UnsupportedAttribute = 401,
    /// Nothing says which session is meant.
    MissingAttribute = 402,
    /// Another NAS is meant.
    NasIdentificationMismatch = 403,
    /// The packet contradicts itself.
    InvalidRequest = 404,
    /// `Service-Type` asks for something else than a change.
    UnsupportedService = 405,
    /// An attribute's value makes no sense.
    InvalidAttributeValue = 407,
    /// There is no such session.
    SessionContextNotFound = 503,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_go_by_the_names_of_the_dictionary() {
        assert_eq!(Kind::Standard(8).name(), Some("Framed-IP-Address"));
        assert_eq!(Kind::Vendor(311, 17).name(), Some("MS-MPPE-Recv-Key"));
        assert_eq!(Kind::Vendor(9, 17).name(), None);
    }
}
