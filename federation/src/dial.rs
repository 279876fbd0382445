//! Which addresses may be dialled, and dialling them. PROTOCOL §9.3.
//!
//! A host that somebody else named must not lead into our own network (server-side request forgery). So the name is resolved
//! once, every address is judged, and the judged address itself is dialled: a name that answers differently a moment later
//! changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Reach;

impl Reach {
    /// The reach of a peer that told us its own address, from where it called: a caller from a private network shares that
    /// network with us.
    #[must_use]
    pub fn seen_from(caller: IpAddr) -> Self {
        if is_global(caller) { Self::Public } else { Self::Anywhere }
    }

    /// Whether `address` may be dialled.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Public => is_global(address),
            // Nobody is reached at these, wherever they stand.
            Self::Anywhere => !address.is_unspecified() && !address.is_multicast(),
        }
    }
}

/// Whether `address` is one of the public Internet. IPv6 addresses that carry an IPv4 address are refused whole: what they lead
/// to depends on a gateway.
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => global_v4(v4),
        IpAddr::V6(v6) => global_v6(v6),
    }
}

/// The blocks of the IANA IPv4 special-purpose registry that are not globally reachable, multicast and the reserved rest.
const SPECIAL_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

fn global_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    !SPECIAL_V4.iter().any(|(net, len)| bits >> (32 - len) == u32::from(*net) >> (32 - len))
}

/// What is outside `2000::/3` is not unicast of the public Internet; inside it, these are not either.
const SPECIAL_V6: &[(Ipv6Addr, u32)] = &[
    // IETF protocol assignments, Teredo and benchmarking among them.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4, an IPv4 address in it.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn global_v6(address: Ipv6Addr) -> bool {
    let bits = u128::from(address);
    let inside = |net: Ipv6Addr, len: u32| bits >> (128 - len) == u128::from(net) >> (128 - len);
    inside(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)
        && !SPECIAL_V6.iter().any(|(net, len)| inside(*net, *len))
}
