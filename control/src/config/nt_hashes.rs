//! NT hashes (RFC 2759 8.3) in place of passwords, as they are found in files of others.
//!
//! | written | who writes so |
//! | --- | --- |
//! | `nthash:HEX`, `{nthash}HEX` | patched pppd, Dovecot |
//! | `{nt}HEX`, `{x-nthash}HEX` | FreeRADIUS' password headers |
//! | `HEX` alone | accel-ppp with `encrypted=1`; only on request, a password may look so, too |
//! | `&/etc/samba/smbpasswd` | pppd with the smbpasswd patch: a whole file of accounts |
//!
//! HEX are 32 hexadecimal digits. Who knows the hash can log in: it is as secret as the password.

/// Octets before the digits; letters may be capitals.
const MARKS: [&[u8]; 4] = [b"nthash:", b"{nthash}", b"{nt}", b"{x-nthash}"];

/// The hash behind a mark: `None` when there is no mark, `Some(None)` when there is no hash behind
/// it.
pub(super) fn marked(secret: &[u8]) -> Option<Option<[u8; 16]>> {
    let digits = MARKS.iter().find_map(|mark| {
        let (head, digits) = secret.split_at_checked(mark.len())?;
        head.eq_ignore_ascii_case(mark).then_some(digits)
    })?;
    Some(from_digits(digits))
}

/// 32 hexadecimal digits.
pub(super) fn from_digits(digits: &[u8]) -> Option<[u8; 16]> {
    let mut hash = [0; 16];
    hex::decode_to_slice(digits, &mut hash).ok().map(|()| hash)
}

/// One account.
pub(super) struct Account {
    pub(super) name: String,
    pub(super) hash: [u8; 16],
}

/// Accounts of smbpasswd(5), `name:uid:LM:NT:[flags]:...`, that have a password and are not
/// disabled.
pub(super) fn accounts(text: &[u8]) -> impl Iterator<Item = Account> + '_ {
    let lines = text.split(|&octet| octet == b'\n');
    lines.filter_map(|line| {
        let mut fields = line.split(|&octet| octet == b':');
        let name = fields.next().filter(|name| !name.starts_with(b"#"))?;
        let hash = from_digits(fields.nth(2)?)?;
        let flags = fields.next().unwrap_or_default();
        (!flags.contains(&b'D')).then(|| Account {
            name: String::from_utf8_lossy(name).into_owned(),
            hash,
        })
    })
}
