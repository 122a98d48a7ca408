//! A network, or one address of it.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, net::IpAddr, str::FromStr};

/// IPv4 in IPv6: `::ffff:10.0.0.1` is 10.0.0.1 (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// `10.0.0.0/8`, or `10.0.0.1`, which is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(IpNet);

#[derive(Debug, thiserror::Error)]
pub enum CidrError {
    #[error("{0:?} is neither an address nor a network, as in 10.0.0.0/8")]
    Malformed(String),
    /// Either what was meant is the network, or the address: they are far apart.
    #[error(
        "{given} has bits past its prefix: it is {network} as a network, {address} as an address"
    )]
    BitsPastPrefix { given: String, network: IpNet, address: IpAddr },
}

impl Cidr {
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let network: IpNet = text.parse().map_err(|_| CidrError::Malformed(text.to_owned()))?;
        if network != network.trunc() {
            return Err(CidrError::BitsPastPrefix {
                given: text.to_owned(),
                network: network.trunc(),
                address: network.addr(),
            });
        }
        let mapped = network.prefix_len().checked_sub(MAPPED_BITS);
        Ok(Self(match (network.addr().to_canonical(), network, mapped) {
            (IpAddr::V4(address), IpNet::V6(_), Some(bits)) => {
                Ipv4Net::new(address, bits).map_or(network, IpNet::V4)
            }
            _ => network,
        }))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.0.0.1", "11.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
        ] {
            let parsed: Cidr = network.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} has {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} has not {outside}");
            let again: Cidr = parsed.to_string().parse().unwrap();
            assert_eq!(again, parsed);
        }
    }

    #[test]
    fn what_is_none_is_refused_and_so_is_what_could_mean_either() {
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "example.com", "10.0.0.0/"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        let told = "10.0.0.1/8".parse::<Cidr>().unwrap_err().to_string();
        assert!(told.contains("10.0.0.0/8 as a network, 10.0.0.1 as an address"), "{told}");
    }
}
