//! Which addresses may be dialled, and dialling them. PROTOCOL §9.3.
//!
//! A host that somebody else named must not lead into our own network (server-side request forgery). So the name is resolved
//! once, every address is judged, and the judged address itself is dialled: a name that answers differently a moment later
//! changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

use crate::Reach;

impl Reach {
    /// The reach of a peer that told us its own address, from where it called: a caller from a private network shares that
    /// network with us. Every other one does not, whatever its address.
    #[must_use]
    pub fn seen_from(caller: IpAddr) -> Self {
        if is_private(caller) { Self::Anywhere } else { Self::Public }
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

/// Whether `address` can only be on our own network or machine. A listener for both kinds of addresses shows IPv4 callers as
/// `::ffff:a.b.c.d`.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || inside_v4(v4, SHARED_V4)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Shared address space (RFC 6598): the inside of a provider, and of overlay networks that borrow it.
const SHARED_V4: (Ipv4Addr, u32) = (Ipv4Addr::new(100, 64, 0, 0), 10);

fn inside_v4(address: Ipv4Addr, (net, len): (Ipv4Addr, u32)) -> bool {
    u32::from(address) >> (32 - len) == u32::from(net) >> (32 - len)
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
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    SHARED_V4,
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
    !SPECIAL_V4.iter().any(|block| inside_v4(address, *block))
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

/// Well-known ports of services that speak first-come text protocols; a peer that names one of them is not a peer.
const SERVICE_PORTS: &[u16] = &[2375, 3306, 5432, 6379, 9200, 11211, 27017];

/// A host leads to this many addresses at most that are tried.
const ADDRESSES: usize = 4;

/// Why no connection was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DialError {
    /// No name server, no host, nobody listens.
    Unreachable(String),
    /// It leads to where we must not go.
    Forbidden(String),
}

/// Connects to the peer's host: resolves it once and dials the addresses that `reach` allows, one after the other.
pub(crate) async fn dial(host: &str, port: u16, reach: Reach) -> Result<TcpStream, DialError> {
    if port == 0 || (reach == Reach::Public && !public_port(port)) {
        return Err(DialError::Forbidden(format!("port {port}")));
    }
    let found = resolve(host, port).await?;
    let allowed: Vec<_> =
        found.iter().copied().filter(|a| reach.allows(a.ip())).take(ADDRESSES).collect();
    if allowed.is_empty() {
        return Err(match found.first() {
            Some(address) => DialError::Forbidden(format!("{host} leads to {}", address.ip())),
            None => DialError::Unreachable(format!("{host} has no address")),
        });
    }
    let mut last = None;
    for address in allowed {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Requests are written whole; waiting for more bytes only costs time.
                return match stream.set_nodelay(true) {
                    Ok(()) => Ok(stream),
                    Err(e) => Err(DialError::Unreachable(format!("{address}: {e}"))),
                };
            }
            Err(e) => last = Some(format!("{address}: {e}")),
        }
    }
    Err(DialError::Unreachable(last.unwrap_or_default()))
}

/// 443 and the ports that anybody may listen on, without those of other services.
fn public_port(port: u16) -> bool {
    port == 443 || (port >= 1024 && !SERVICE_PORTS.contains(&port))
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // Forms like 0x7f.1 are left to the resolver, which turns them into an address that is judged like any other.
    match tokio::net::lookup_host((bare, port)).await {
        Ok(addresses) => Ok(addresses.take(64).collect()),
        Err(e) => Err(DialError::Unreachable(format!("{host}: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_of_our_own_network_is_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert!(!Reach::Public.allows(address), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert!(Reach::Public.allows(address), "{text}");
        }
    }

    #[test]
    fn a_caller_from_outside_does_not_get_us_to_dial_inside() {
        for (text, reach) in [
            ("127.0.0.1", Reach::Anywhere),
            ("::ffff:127.0.0.1", Reach::Anywhere),
            ("10.1.2.3", Reach::Anywhere),
            ("172.16.0.1", Reach::Anywhere),
            ("192.168.1.1", Reach::Anywhere),
            ("169.254.1.1", Reach::Anywhere),
            ("100.100.1.1", Reach::Anywhere),
            ("::1", Reach::Anywhere),
            ("fd00::1", Reach::Anywhere),
            ("fe80::1", Reach::Anywhere),
            ("8.8.8.8", Reach::Public),
            ("::ffff:8.8.8.8", Reach::Public),
            ("2002:808:808::1", Reach::Public),
            ("2001::1", Reach::Public),
            ("64:ff9b::808:808", Reach::Public),
            ("198.18.0.1", Reach::Public),
            ("2a00:1450::1", Reach::Public),
        ] {
            assert_eq!(Reach::seen_from(text.parse().unwrap()), reach, "{text}");
        }
    }

    #[test]
    fn a_peer_an_operator_named_may_be_on_our_own_network() {
        for (text, allowed) in [
            ("127.0.0.1", true),
            ("10.0.0.1", true),
            ("::1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(Reach::Anywhere.allows(text.parse().unwrap()), allowed, "{text}");
        }
    }

    #[tokio::test]
    async fn a_host_that_somebody_named_does_not_lead_inside() {
        // The numbers in other bases are what C libraries take for addresses.
        for host in [
            "127.0.0.1",
            "[::1]",
            "::1",
            "localhost",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "169.254.169.254",
            "[::ffff:10.0.0.1]",
        ] {
            match dial(host, 8443, Reach::Public).await {
                Err(DialError::Forbidden(_)) => {}
                // A resolver that does not know these spellings is as good.
                Err(DialError::Unreachable(_))
                    if host.parse::<IpAddr>().is_err() && host != "localhost" => {}
                other => panic!("{host}: {other:?}"),
            }
        }
        for port in [0, 22, 25, 80, 6379] {
            assert!(
                matches!(dial("1.1.1.1", port, Reach::Public).await, Err(DialError::Forbidden(_))),
                "{port}"
            );
        }
    }
}
