//! How much a session may carry, in the attributes of pppd (`Session-Octets-Limit`,
//! `Octets-Direction`), RouterOS (`Mikrotik-Recv-Limit`, `-Xmit-Limit`, `-Total-Limit` with their
//! gigawords) and ChilliSpot (`ChilliSpot-Max-Input-Octets` and so on). Input, and what RouterOS
//! receives, is what the client sends. 0 is no limit.

use dataplane::rate_limit::Quota;

use crate::wire::radius::{Kind, Packet};

/// What a packet says; `None` when it says nothing.
pub(super) fn quota_of(packet: Packet<'_>) -> Option<Quota> {
    let low = |kind| packet.number(kind).map(u64::from);
    let wide = |kind, gigawords| match (low(kind), low(gigawords)) {
        (None, None) => None,
        (octets, gigawords) => Some(gigawords.unwrap_or(0) << 32 | octets.unwrap_or(0)),
    };
    let by_vendors = Quota {
        receive_bytes: wide(
            Kind::MIKROTIK_RECV_LIMIT,
            Kind::MIKROTIK_RECV_LIMIT_GIGAWORDS,
        )
        .or_else(|| low(Kind::CHILLISPOT_MAX_INPUT_OCTETS)),
        send_bytes: wide(
            Kind::MIKROTIK_XMIT_LIMIT,
            Kind::MIKROTIK_XMIT_LIMIT_GIGAWORDS,
        )
        .or_else(|| low(Kind::CHILLISPOT_MAX_OUTPUT_OCTETS)),
        total_bytes: wide(
            Kind::MIKROTIK_TOTAL_LIMIT,
            Kind::MIKROTIK_TOTAL_LIMIT_GIGAWORDS,
        )
        .or_else(|| low(Kind::CHILLISPOT_MAX_TOTAL_OCTETS)),
    };
    let quota = match low(Kind::SESSION_OCTETS_LIMIT) {
        Some(octets) => of_pppd(octets, packet.number(Kind::OCTETS_DIRECTION), by_vendors),
        None => by_vendors,
    };
    let is_said = quota != Quota::default();
    let limit = |octets: Option<u64>| octets.filter(|octets| *octets > 0);
    is_said.then(|| Quota {
        receive_bytes: limit(quota.receive_bytes),
        send_bytes: limit(quota.send_bytes),
        total_bytes: limit(quota.total_bytes),
    })
}

/// `Octets-Direction`: 0 the sum, 1 input, 2 output, 3 and 4 whichever is more.
fn of_pppd(octets: u64, direction: Option<u32>, others: Quota) -> Quota {
    let octets = Some(octets);
    match direction.unwrap_or(0) {
        1 => Quota {
            receive_bytes: octets,
            ..others
        },
        2 => Quota {
            send_bytes: octets,
            ..others
        },
        3 | 4 => Quota {
            receive_bytes: octets,
            send_bytes: octets,
            ..others
        },
        _ => Quota {
            total_bytes: octets,
            ..others
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::radius::{AttributeList, access_request};

    fn quota(attributes: &[(Kind, u32)]) -> Option<Quota> {
        let mut list = AttributeList::new();
        for (kind, number) in attributes {
            list.number(*kind, *number);
        }
        let octets = access_request(1, &[9; 16], &list, None, b"secret");
        quota_of(Packet::parse(&octets).unwrap())
    }

    #[test]
    fn pppds_limit_counts_in_the_direction_that_is_named() {
        let limited = |direction: Option<u32>| {
            let mut attributes = vec![(Kind::SESSION_OCTETS_LIMIT, 1_000)];
            attributes.extend(direction.map(|it| (Kind::OCTETS_DIRECTION, it)));
            let quota = quota(&attributes).unwrap();
            [quota.receive_bytes, quota.send_bytes, quota.total_bytes].map(|it| it.is_some())
        };
        assert_eq!(limited(None), [false, false, true]);
        assert_eq!(limited(Some(0)), [false, false, true]);
        assert_eq!(limited(Some(1)), [true, false, false]);
        assert_eq!(limited(Some(2)), [false, true, false]);
        assert_eq!(limited(Some(3)), [true, true, false]);
        assert_eq!(quota(&[(Kind::OCTETS_DIRECTION, 1)]), None);
    }

    #[test]
    fn routeros_limits_have_64_bits() {
        let found = quota(&[
            (Kind::MIKROTIK_RECV_LIMIT, 7),
            (Kind::MIKROTIK_RECV_LIMIT_GIGAWORDS, 2),
            (Kind::MIKROTIK_TOTAL_LIMIT_GIGAWORDS, 3),
        ]);
        let due = Quota {
            receive_bytes: Some((2 << 32) + 7),
            send_bytes: None,
            total_bytes: Some(3 << 32),
        };
        assert_eq!(found, Some(due));
        assert_eq!(quota(&[]), None);
        // Takes an earlier limit away.
        assert_eq!(
            quota(&[(Kind::MIKROTIK_XMIT_LIMIT, 0)]),
            Some(Quota::default())
        );
    }

    #[test]
    fn chillispots_input_is_what_the_client_sends() {
        let found = quota(&[(Kind::CHILLISPOT_MAX_INPUT_OCTETS, 9)]).unwrap();
        assert_eq!(found.receive_bytes, Some(9));
    }
}
