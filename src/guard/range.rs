//! Which addresses are of the public internet, and of no network that only we can reach.
//!
//! Sources: the IANA registries of special-purpose addresses (RFC 6890), and learn.microsoft.com of
//! 168.63.129.16.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const BLOCKED_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    // Azure's own services for the machine that asks, though by its number it is public.
    v4([168, 63, 129, 16], 32),
    // With the metadata of most clouds, 169.254.169.254.
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// Nothing outside of it is routed on the internet: neither `::1` nor `fc00::/7`, `fe80::/10` or
/// `ff00::/8`.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0], 3);
/// What within [`GLOBAL_V6`] is not public: protocols such as Teredo, and documentation.
const BLOCKED_V6: [Ipv6Net; 3] = [
    v6([0x2001, 0], 23),
    v6([0x2001, 0xdb8], 32),
    v6([0x3fff, 0], 20),
];

/// Prefixes after which there is an address of IPv4, which is the one that is reached.
const NAT64: Ipv6Net = v6([0x64, 0xff9b], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0], 16);

/// Tells whether an address is of the public internet, whatever it is written as.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(address) => is_public_v4(address),
            None => {
                GLOBAL_V6.contains(&address) && !BLOCKED_V6.iter().any(|net| net.contains(&address))
            }
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !BLOCKED_V4.iter().any(|net| net.contains(&address))
}

/// Returns the address of IPv4 that one of IPv6 leads to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, a, b, c, d, ..] = address.octets();
    if SIX_TO_FOUR.contains(&address) {
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    if NAT64.contains(&address) {
        let [.., a, b, c, d] = address.octets();
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    address.to_ipv4_mapped()
}

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6([a, b]: [u16; 2], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_address_of_each_blocked_range_are_not_public() {
        let edges_v4 = BLOCKED_V4.map(|net| [net.network(), net.broadcast()].map(IpAddr::V4));
        let edges_v6 = BLOCKED_V6.map(|net| [net.network(), net.broadcast()].map(IpAddr::V6));
        for address in edges_v4.into_iter().chain(edges_v6).flatten() {
            assert!(!is_public(address), "{address}");
        }
    }

    #[test]
    fn an_address_is_public_up_to_the_edge_of_a_blocked_range() {
        for public in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db7:ffff::",
            "2001:db9::",
            "2600::1",
            "3ffe::1",
            "3fff:1000::",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
            "2002:808:808::",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn what_is_not_routed_is_not_public() {
        for hidden in [
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "1fff:ffff::",
            "2001::1",
            "2001:1ff:ffff::",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "4000::",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(hidden.parse().unwrap()), "{hidden}");
        }
    }
}
