//! Files of ip2region, which the Spring Cloud design (seed S1) names: `xdb` of version 2, for IPv4,
//! and of version 3, for IPv4 or IPv6. Source: the format as its project describes it.
//!
//! Every access is checked: a damaged file finds nothing, or the wrong place, and never panics.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::Place;

/// The header, and behind it the index by the first two bytes of an address.
const HEADER: usize = 256;
const INDEX: usize = 256 * 256 * 8;

/// A file of ip2region, read into memory.
#[derive(Debug)]
pub(super) struct Xdb {
    bytes: Vec<u8>,
    /// The bytes of an address: 4 or 16.
    width: usize,
    layout: Layout,
}

/// How regions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `国家|区域|省份|城市|ISP`, the one of version 2.
    WithArea,
    /// `国家|省份|城市|ISP`, with a country code behind it or not; files of version 3 that were made
    /// from data of version 2 have its layout still.
    Plain,
}

/// Why bytes are no such file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidXdb {
    /// The header is that of something else.
    #[error("neither an mmdb file nor an xdb file")]
    Header,
    /// The header is one of a version that nobody here knows.
    #[error("an xdb file of version {0}, and only 2 and 3 are known")]
    Version(u16),
    /// The file is shorter than its own index.
    #[error("an xdb file that is cut short")]
    Short,
}

impl Xdb {
    /// Reads the header.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, InvalidXdb> {
        let header = |at| u16_at(&bytes, at).ok_or(InvalidXdb::Header);
        let (version, policy, family) = (header(0)?, header(2)?, header(16)?);
        if !(1..=2).contains(&policy) {
            return Err(InvalidXdb::Header);
        }
        let width = match (version, family) {
            // Version 2 knows IPv4 only, and leaves the rest of its header to zeros.
            (2, _) | (3, 4) => 4,
            (3, 6) => 16,
            (3, _) => return Err(InvalidXdb::Header),
            _ => return Err(InvalidXdb::Version(version)),
        };
        if bytes.len() < HEADER + INDEX {
            return Err(InvalidXdb::Short);
        }
        let layout = if version == 2 { Layout::WithArea } else { Layout::Plain };
        Ok(Self { bytes, width, layout })
    }

    /// Returns the place of an address; an address of the other family has none here.
    pub(super) fn find(&self, address: IpAddr) -> Option<Place> {
        match address {
            IpAddr::V4(address) if self.width == 4 => self.search(&address.octets()),
            IpAddr::V6(address) if self.width == 16 => self.search(&address.octets()),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// Searches the segments that the index names for the first two bytes of an address.
    fn search(&self, address: &[u8]) -> Option<Place> {
        let &[first, second, ..] = address else { return None };
        let cell = HEADER + (usize::from(first) * 256 + usize::from(second)) * 8;
        let (from, to) = (u32_at(&self.bytes, cell)?, u32_at(&self.bytes, cell + 4)?);
        if from < HEADER + INDEX {
            return None;
        }
        let size = self.width * 2 + 6;
        let (mut low, mut high) = (0, to.checked_sub(from)? / size + 1);
        while low < high {
            let middle = usize::midpoint(low, high);
            let at = from + middle * size;
            match self.compare(address, at) {
                Some(Ordering::Equal) => return self.region(at + self.width * 2),
                Some(Ordering::Greater) => low = middle + 1,
                // What stands behind the end of the file is behind the address.
                Some(Ordering::Less) | None => high = middle,
            }
        }
        None
    }

    /// Tells whether an address stands before, in or behind a segment.
    fn compare(&self, address: &[u8], at: usize) -> Option<Ordering> {
        let start = self.bound(at)?;
        let end = self.bound(at + self.width)?;
        let start = start.iter().take(self.width);
        Some(if address.iter().lt(start) {
            Ordering::Less
        } else if address.iter().gt(end.iter().take(self.width)) {
            Ordering::Greater
        } else {
            Ordering::Equal
        })
    }

    /// Returns a bound of a segment, the highest byte first: IPv4 is kept as a little-endian number.
    fn bound(&self, at: usize) -> Option<[u8; 16]> {
        let kept = self.bytes.get(at..at + self.width)?;
        let mut bound = [0; 16];
        for (place, byte) in bound.iter_mut().zip(kept) {
            *place = *byte;
        }
        if self.width == 4 {
            bound.get_mut(..4)?.reverse();
        }
        Some(bound)
    }

    fn region(&self, at: usize) -> Option<Place> {
        let length = usize::from(u16_at(&self.bytes, at)?);
        let from = u32_at(&self.bytes, at + 2)?;
        let text = std::str::from_utf8(self.bytes.get(from..from + length)?).ok()?;
        Some(place(text, self.layout))
    }
}

/// Reads a region; `0` stands for what is not known.
fn place(text: &str, layout: Layout) -> Place {
    let known = |field: &&str| !field.is_empty() && *field != "0" && *field != "Reserved";
    let fields: Vec<&str> = text.split('|').map(str::trim).collect();
    let field = |at: usize| fields.get(at).copied().filter(known);
    let code = field(4).filter(|it| it.len() == 2 && it.bytes().all(|it| it.is_ascii_uppercase()));
    let code = code.filter(|_| layout == Layout::Plain);
    let (province, city) = if fields.len() == 5 && code.is_none() { (2, 3) } else { (1, 2) };
    let country: Vec<&str> = field(0).into_iter().chain(code).collect();
    let one = |at: usize| field(at).map(|name| vec![name]).unwrap_or_default();
    Place::new(&country, &one(province), &one(city))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let &[low, high] = bytes.get(at..at + 2)? else { return None };
    Some(u16::from_le_bytes([low, high]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let &[a, b, c, d] = bytes.get(at..at + 4)? else { return None };
    usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes a file of segments that are sorted and do not overlap.
    fn written(version: u16, family: u16, segments: &[(&str, &str, &str)]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + INDEX];
        bytes[0..2].copy_from_slice(&version.to_le_bytes());
        bytes[2..4].copy_from_slice(&1_u16.to_le_bytes());
        bytes[16..18].copy_from_slice(&family.to_le_bytes());
        let mut regions = Vec::new();
        for (.., region) in segments {
            regions.push(u32::try_from(bytes.len()).unwrap());
            bytes.extend(region.bytes());
        }
        for ((start, end, region), at) in segments.iter().zip(regions) {
            let from = u32::try_from(bytes.len()).unwrap();
            let bounds = [start, end].map(|text| match text.parse().unwrap() {
                IpAddr::V4(address) => address.octets().into_iter().rev().collect(),
                IpAddr::V6(address) => address.octets().to_vec(),
            });
            bytes.extend(bounds.concat());
            bytes.extend(u16::try_from(region.len()).unwrap().to_le_bytes());
            bytes.extend(at.to_le_bytes());
            let first: Vec<u8> = match start.parse().unwrap() {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let cell = HEADER + (usize::from(first[0]) * 256 + usize::from(first[1])) * 8;
            if bytes[cell..cell + 4] == [0; 4] {
                bytes[cell..cell + 4].copy_from_slice(&from.to_le_bytes());
            }
            let to = u32::try_from(bytes.len()).unwrap();
            bytes[cell + 4..cell + 8].copy_from_slice(&to.to_le_bytes());
        }
        bytes
    }

    #[track_caller]
    fn check(xdb: &Xdb, address: &str, expected: Option<(&str, &str)>) {
        let place = xdb.find(address.parse().unwrap());
        match expected {
            None => assert_eq!(place, None, "{address}"),
            Some((province, city)) => {
                let place = place.unwrap();
                let expected = Place::new(&[], &[province], &[city]);
                assert_eq!((place.province, place.city), (expected.province, expected.city));
            }
        }
    }

    #[test]
    fn version_2_has_a_field_more_before_the_province() {
        let xdb = Xdb::parse(written(
            2,
            0,
            &[
                ("1.2.0.0", "1.2.0.255", "中国|0|广东省|深圳市|电信"),
                ("1.2.1.0", "1.2.3.255", "中国|0|北京|北京市|0"),
                ("1.2.8.0", "1.2.8.0", "0|0|0|内网IP|内网IP"),
                ("1.2.9.0", "1.2.9.0", "英国|0|英格兰|伦敦|BT"),
            ],
        ));
        let xdb = xdb.unwrap();
        check(&xdb, "1.2.0.0", Some(("广东", "深圳")));
        check(&xdb, "1.2.0.255", Some(("广东", "深圳")));
        check(&xdb, "1.2.2.7", Some(("北京", "北京")));
        check(&xdb, "1.2.8.0", Some(("", "内网IP")));
        check(&xdb, "1.2.9.0", Some(("英格兰", "伦敦")));
        for unknown in ["1.2.4.0", "1.2.10.0", "1.3.0.0", "255.255.255.255", "::1"] {
            check(&xdb, unknown, None);
        }
    }

    #[test]
    fn version_3_knows_ipv6_and_codes_of_countries() {
        let segments = [
            ("2409::", "2409:ff::", "中国|广东省|深圳市|移动|CN"),
            ("2c0f::", "2c0f::ffff", "Nigeria|Sokoto|Sokoto|Layer3 Limited|NG"),
        ];
        let xdb = Xdb::parse(written(3, 6, &segments)).unwrap();
        check(&xdb, "2409:8::1", Some(("广东", "深圳")));
        check(&xdb, "2c0f::7", Some(("Sokoto", "Sokoto")));
        check(&xdb, "1.2.3.4", None);
        let country = xdb.find("2409::".parse().unwrap()).unwrap().country;
        assert!(country.contains(&"cn".to_owned()) && country.contains(&"中国".to_owned()));
        let plain = |text| place(text, Layout::Plain);
        assert_eq!(plain("0|0|Reserved|Reserved|Reserved"), Place::default());
        let shenzhen = Place::new(&["中国"], &["广东"], &["深圳"]);
        assert_eq!(plain("中国|广东省|深圳市|电信"), shenzhen);
        assert_eq!(plain("中国|0|广东省|深圳市|电信"), shenzhen);
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let parse = |bytes: &[u8]| Xdb::parse(bytes.to_vec()).unwrap_err();
        assert_eq!(parse(b""), InvalidXdb::Header);
        assert_eq!(parse(&vec![0; 600_000]), InvalidXdb::Header);
        let whole = written(2, 0, &[]);
        assert_eq!(parse(&whole[..1000]), InvalidXdb::Short);
        assert_eq!(parse(&written(4, 0, &[])), InvalidXdb::Version(4));
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics(
            damage in prop::collection::vec((0_usize..HEADER + INDEX + 200, any::<u8>()), 1..40),
            cut in 0_usize..200,
            address: u32,
        ) {
            let segments = [("1.2.0.0", "1.2.0.255", "中国|0|广东省|深圳市|电信")];
            let mut bytes = written(2, 0, &segments);
            for (at, byte) in damage {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(bytes.len() - cut.min(60));
            // All cells of the index lead to the one that is written.
            let cell = HEADER + (256 + 2) * 8;
            let kept: Vec<u8> = bytes[cell..cell + 8].to_vec();
            let octets = address.to_be_bytes();
            let other = HEADER + (usize::from(octets[0]) * 256 + usize::from(octets[1])) * 8;
            // The file may end before.
            if let Some(cell) = bytes.get_mut(other..other + 8) {
                cell.copy_from_slice(&kept);
            }
            if let Ok(xdb) = Xdb::parse(bytes) {
                xdb.find(std::net::Ipv4Addr::from(address).into());
            }
        }
    }
}
