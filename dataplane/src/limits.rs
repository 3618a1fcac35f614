//! Every bound of the data plane, each with its why. Nothing here depends on a stranger.

/// Packets that one call of `encap` or `decap` takes. Key derivation is serial and RC4 runs a few
/// lanes abreast, so 64 is far beyond the point of diminishing returns and keeps a batch in L1/L2.
pub const BATCH_PACKETS: usize = 64;

/// Packets that are handed at once to the packet socket, or an AF_XDP socket.
pub const DIRECT_PACKETS: usize = 64;

/// AF_XDP sockets of a worker, one for each interface that packets leave through. A host has one or
/// two such interfaces; further ones use the packet socket.
pub const XDP_SOCKETS_MAX: usize = 4;

/// While an AF_XDP socket has packets, how often it is looked at: nothing wakes the worker when the
/// driver takes more of them or has sent them.
pub const XDP_RETRY_MS: u64 = 1;

/// How long a driver has time to be done with what an AF_XDP socket that is not used any more had
/// given it. A driver that is down has nothing left.
pub const XDP_RETIRE_MS: u64 = 400;

/// Octets of one arena slot: an Ethernet-sized packet with all its headers, and room to spare.
pub const SLOT_BYTES: usize = 2048;

/// Headroom that a packet read from TUN needs in its slot: GRE (16), FF 03 (2), protocol (2),
/// MPPE (2), inner protocol (2) are 24; a virtio-net header, or an outer IPv4 header with an
/// Ethernet header, may precede.
pub const HEADROOM_BYTES: usize = 64;

/// Octets of the largest PPP information field (RFC 1661 2) that a slot holds behind the headroom
/// as it comes from the network: an outer IPv4 header with all options (60), GRE (16), FF 03 (2)
/// and protocol (2) precede. No larger MRU may be announced; what is longer would be cut.
pub const INFORMATION_BYTES_MAX: usize = SLOT_BYTES - HEADROOM_BYTES - 80;

/// Packets that one session holds while it waits for an earlier one. More than a handful overtake
/// each other only where a path changes, and then waiting does not help.
pub const REORDER_PACKETS: usize = 16;

/// Packets that all sessions of one worker hold together; each keeps an arena slot from the
/// receive ring. Beyond it a session gives its gap up at once.
pub const HELD_PACKETS_MAX: usize = 1024;

/// How long a gap is waited for. Userland peers wait 300 ms; but every true loss stalls what is
/// behind it for this time, and networks that reorder do so within a few milliseconds.
pub const REORDER_TIMEOUT_MS: u64 = 50;

/// A sequence number at most this far behind is a late packet; farther away, it is a jump.
pub const LATE_WINDOW: u32 = 1024;

/// Packets in a row that must agree before a jump of the sequence number is believed without
/// proof. A decrypted packet is proof.
pub const RESYNC_PACKETS: u8 = 3;

/// A jump back, or a clear packet's jump in an encrypted session, is believed only when nothing
/// was accepted for this long.
pub const RESYNC_QUIET_MS: u64 = 1000;

/// Receive window that control announces (RFC 2637 2.7): acknowledgments must come more often.
pub const RECEIVE_WINDOW_PACKETS: u16 = 64;

/// Packets received since the last acknowledgment after which one is sent alone.
pub const ACK_EVERY_PACKETS: u32 = 32;

/// Time after which an owed acknowledgment is sent alone.
pub const ACK_DELAY_MS: u64 = 200;

/// MPPE keys that one packet may make us skip, and that a session may have saved up: a second of
/// 260,000 packets, which an overloaded host may well lose at once. A session that could not skip
/// them would receive nothing any more. A key costs 0.4 us, so that is a pause of 0.1 s at worst,
/// earned back in three.
pub const KEYS_SKIPPED_MAX: u32 = 262_144;

/// Skipping no more keys than this is free, so that a forger who uses up the budget below cannot
/// keep out a peer that loses a few packets.
pub const KEYS_SKIPPED_FREE: u32 = 64;

/// MPPE keys that one session earns in each `KEY_BUDGET_INTERVAL_MS`, to skip when it must: forged
/// packets cost a worker at most 3 % of its time in the long run.
pub const KEY_BUDGET: u32 = 8192;

/// See `KEY_BUDGET`.
pub const KEY_BUDGET_INTERVAL_MS: u64 = 100;

/// Key streams prepared for one direction of a session: those of a millisecond at full speed, or of
/// some trains. With both directions a session takes 390 kB.
pub const PREPARED_PACKETS: usize = 128;

/// Octets of a prepared key stream: the longest packet of an Ethernet-sized tunnel with its
/// protocol field, in whole steps of the cipher. Longer packets are enciphered as they come.
pub const PREPARED_BYTES: usize = 1504;

/// A session that has overtaken what was prepared for it, and goes on faster than
/// `PREPARED_PACKETS` / 2 in this time, is left alone: what is done for it would come too late, and
/// take time from a processor that has none.
pub const PREPARER_REST_MS: u64 = 2;

/// Sessions of one worker whose key streams are prepared, which takes 100 MB; others go without.
pub const LOOK_AHEAD_SESSIONS: usize = 256;

/// Packets in a row that fail to decrypt before a session may be called lost.
pub const MPPE_FAILURES_MAX: u32 = 32;

/// Time without any packet that decrypts, after which so many failures mean that the peer's key
/// and ours have parted for good.
pub const MPPE_LOST_MS: u64 = 5000;

/// Pause between two CCP Reset-Requests for one loss.
pub const RESET_REQUEST_INTERVAL_MS: u64 = 1000;

/// Notices of sessions that wait for the worker to pass them on; it does after every batch.
pub const NOTICES_MAX: usize = 1024;

/// A session with a rate may send at once, after a pause, what it may send in so many milliseconds:
/// about a round trip over a continent and back, which TCP needs to fill the rate.
pub const BURST_MS: u64 = 250;

/// And no less than one train of TCP segments, which the TUN device hands over as a whole.
pub const BURST_BYTES_MIN: u64 = 64 * 1024;

/// Verdicts that one batch yields at most: each packet its own, and those it sets free.
pub const VERDICTS_MAX: usize = BATCH_PACKETS * (1 + REORDER_PACKETS);

/// Sessions of one worker that are looked at (`capture`) at once: a person looks at one.
pub const TAPS_MAX: usize = 4;

/// Packets that wait for whoever looks, 2 KiB each: ten milliseconds of 100,000 packets a second.
pub const TAP_BUFFERS: usize = 1024;

const _: () = assert!(ACK_EVERY_PACKETS < RECEIVE_WINDOW_PACKETS as u32);
const _: () = assert!(REORDER_PACKETS < LATE_WINDOW as usize);
const _: () = assert!(REORDER_PACKETS.is_power_of_two());
const _: () = assert!(HELD_PACKETS_MAX >= REORDER_PACKETS);
const _: () = assert!(SLOT_BYTES <= u16::MAX as usize);
const _: () = assert!(KEYS_SKIPPED_MAX >= KEY_BUDGET);
const _: () = assert!(KEYS_SKIPPED_FREE as usize > REORDER_PACKETS);
const _: () = assert!(HEADROOM_BYTES >= 24 + crate::wire::ipv4::HEADER_LEN + 14);

/// Receive buffers of a worker that are for GRE, and as many more that are for TUN, unless
/// configured: 8 MiB, and twice what sessions may hold for reordering.
pub const RECEIVE_SLOTS: u16 = 2048;

/// Bounds of that configuration: a full batch of both kinds must fit, and slots have 16-bit names.
pub const RECEIVE_SLOTS_RANGE: std::ops::RangeInclusive<u16> = 256..=16384;

/// Slots for packets that a worker makes itself: injected frames and acknowledgments. A turn that
/// needs more goes on in the next, when some have been sent.
pub const CONTROL_SLOTS: u16 = 256;

/// Frames of a worker's packet ring, each as long as a slot: 8 MiB, 30 ms of a full gigabit. A
/// quarter of it is too little: a busy worker then loses packets.
pub const RING_FRAMES: u16 = 4096;

/// Packets that are taken out of the packet ring in one turn.
pub const RING_PACKETS: usize = 256;

/// Slots into which packets move that sessions hold: a frame of the packet ring that was held would
/// stop the ring when it comes round.
pub const KEPT_SLOTS: u16 = HELD_PACKETS_MAX as u16;

/// TUN devices that one worker serves: one a session, and a shared one.
pub const TUNS_MAX: usize = 4096;

/// How often a worker looks whether its TUN devices are still there. A read reports a deletion at
/// once, but for a race in Linux: `tun_detach_all` wakes the reader before it takes the device
/// away, and a multishot read that looks in between finds nothing wrong and sleeps on.
pub const TUN_CHECK_MS: u64 = 1000;

/// Room in the notice queue that punted frames leave for notices that must not be lost.
pub const NOTICES_RESERVED: usize = 64;

/// Frames that one session may punt at once. A negotiation takes some twenty.
pub const PUNT_BURST: u32 = 64;

/// Time after which a session may punt one more. LCP echo and CCP resets come more slowly.
pub const PUNT_INTERVAL_MS: u64 = 10;

/// Errors in a row, without a packet between them, after which the GRE socket is given up.
pub const RECEIVE_ERRORS_MAX: u32 = 256;

/// Octets of a buffer that TUN devices are read into: the longest IP packet with its virtio-net
/// header, in whole pages.
pub const READ_BYTES: usize = 17 * 4096;

/// Such buffers of a worker, a power of two. Each holds one packet, or a train of some forty, until
/// it has been cut into slots: 4.3 MiB, and more than all slots can take.
pub const READ_BUFFERS: u16 = 64;

/// Packets that are cut out of what was read, in one turn: what comes from the peer waits for no
/// more than these to be enciphered.
pub const SPLIT_PACKETS: usize = 256;

/// Packets that are joined for one write to a TUN device: senders' trains are no longer, at the
/// usual MTU, since they are IP packets themselves.
pub const RUN_PACKETS_MAX: usize = 47;

/// Joined writes in flight. Without one left, packets are written alone.
pub const GATHERS_MAX: u16 = 256;

const _: () = assert!(READ_BYTES >= u16::MAX as usize + crate::offload::VnetHeader::LEN);
const _: () = assert!(READ_BUFFERS.is_power_of_two());
const _: () = assert!(HEADROOM_BYTES >= crate::offload::VnetHeader::LEN);

const _: () = assert!(RECEIVE_SLOTS as usize >= 2 * HELD_PACKETS_MAX);
const _: () = assert!(*RECEIVE_SLOTS_RANGE.start() as usize >= 2 * BATCH_PACKETS);
const _: () = assert!(
    2 * *RECEIVE_SLOTS_RANGE.end() as usize
        + CONTROL_SLOTS as usize
        + KEPT_SLOTS as usize
        + RING_FRAMES as usize
        <= 1 << 16
);
