use std::fmt;
use std::net::IpAddr;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How many steps make the whole: shares are exact to 0.01 %.
const STEPS: u16 = 10_000;

/// A share of all keys, always the same ones.
///
/// A key's bucket depends on nothing but the salt and the key: it is the same on every replica, and
/// when the share grows, whoever was in stays in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    seed: u64,
    steps: u16,
}

impl Share {
    /// A share of so many percent, from 0 to 100; `None` if it is none or finer than 0.01 %.
    pub(crate) fn new(percent: f64, salt: &str) -> Option<Self> {
        let steps = percent * 100.0;
        let whole = (steps - steps.round()).abs() < 1e-6;
        if !(whole && (0.0..=f64::from(STEPS)).contains(&steps.round())) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "checked to lie between 0 and 10,000")]
        #[allow(clippy::cast_sign_loss, reason = "checked to lie between 0 and 10,000")]
        Some(Self { seed: xxh3_64(salt.as_bytes()), steps: steps.round() as u16 })
    }

    /// Tells whether a key is in.
    pub(crate) fn holds(self, key: &[u8]) -> bool {
        self.bucket(key) < self.steps
    }

    /// Returns the key's place between 0 and 9,999.
    pub(crate) fn bucket(self, key: &[u8]) -> u16 {
        let hash = xxh3_64_with_seed(key, self.seed);
        let scaled = (u128::from(hash) * u128::from(STEPS)) >> 64;
        u16::try_from(scaled).unwrap_or(STEPS - 1)
    }

    /// Tells whether whatever is in this share is in the other one too.
    pub(crate) const fn is_part_of(self, other: Self) -> bool {
        self.seed == other.seed && self.steps <= other.steps
    }

    /// Returns how many steps of 0.01 % it has.
    pub(crate) const fn steps(self) -> u16 {
        self.steps
    }

    /// Returns the share in percent.
    pub(crate) fn percent(self) -> f64 {
        f64::from(self.steps) / 100.0
    }
}

/// An address as a key: the same bytes whether it came as IPv4 or as IPv4-mapped IPv6.
pub(crate) fn address_key(address: IpAddr) -> ([u8; 16], usize) {
    let mut key = [0; 16];
    let copied = match address.to_canonical() {
        IpAddr::V4(address) => copy(&mut key, &address.octets()),
        IpAddr::V6(address) => copy(&mut key, &address.octets()),
    };
    (key, copied)
}

fn copy(key: &mut [u8; 16], octets: &[u8]) -> usize {
    key.iter_mut().zip(octets).map(|(to, from)| *to = *from).count()
}

/// A key that the gateway gave to a client who had none, to be set as a cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IssuedId([u8; 16]);

impl IssuedId {
    /// Draws one.
    pub(crate) fn draw() -> Self {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        Self(std::array::from_fn(|_| DIGITS.get(fastrand::usize(..16)).copied().unwrap_or(b'0')))
    }

    /// Returns the key's text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for IssuedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedId({})", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "counts of tests are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(percent: f64, salt: &str) -> Share {
        Share::new(percent, salt).unwrap()
    }

    #[test]
    fn is_exact_to_a_hundredth_of_a_percent() {
        assert_eq!(share(0.01, "s").steps, 1);
        assert_eq!(share(33.33, "s").steps, 3_333);
        assert_eq!(share(100.0, "s").steps, 10_000);
        for percent in [-0.01, 100.01, 0.001, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::new(percent, "s"), None, "{percent}");
        }
    }

    #[test]
    fn is_the_same_in_every_release() {
        let buckets =
            ["1001", "1002", "alice", ""].map(|key| share(5.0, "rule").bucket(key.as_bytes()));
        // Computed with the reference library (Python's xxhash): hash * 10000 >> 64.
        assert_eq!(buckets, [6_507, 1_244, 2_945, 5_087]);
    }

    #[test]
    fn a_hundred_shares_of_a_hundred_thousand_users_grow_within_three_sigma() {
        const USERS: u32 = 100_000;
        let users: Vec<String> = (0..USERS).map(|user| user.to_string()).collect();
        let mut inside = vec![false; users.len()];
        for percent in 0..=100 {
            let share = share(f64::from(percent), "a");
            for (user, inside) in users.iter().zip(&mut inside) {
                let holds = share.holds(user.as_bytes());
                assert!(holds || !*inside, "{user} left at {percent} %");
                *inside = holds;
            }
            let hits = inside.iter().filter(|inside| **inside).count();
            let p = f64::from(percent) / 100.0;
            let sigma = (f64::from(USERS) * p * (1.0 - p)).sqrt();
            let off = (hits as f64 - f64::from(USERS) * p).abs();
            assert!(off <= 3.0 * sigma, "{percent} %: {hits} hits, {off} off, sigma {sigma}");
        }
    }

    #[test]
    fn spreads_evenly_over_its_buckets() {
        const KEYS: u32 = 200_000;
        let mut counts = [0_u32; 100];
        for key in 0..KEYS {
            counts[usize::from(share(1.0, "b").bucket(key.to_string().as_bytes()) / 100)] += 1;
        }
        let expected = f64::from(KEYS) / 100.0;
        let chi: f64 = counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
        // The 0.1 % quantile of chi-square with 99 degrees of freedom.
        assert!(chi < 148.2, "{chi}");
    }

    #[test]
    fn two_salts_choose_independently() {
        let (one, other) = (share(20.0, "one"), share(20.0, "other"));
        let keys = (0..100_000_u32).map(|key| key.to_string());
        let both = keys.filter(|key| one.holds(key.as_bytes()) && other.holds(key.as_bytes()));
        let both = both.count() as f64;
        let sigma = (100_000.0 * 0.04 * 0.96_f64).sqrt();
        assert!((both - 4_000.0).abs() <= 3.0 * sigma, "{both}");
    }

    proptest! {
        #[test]
        fn whoever_is_in_stays_in_when_the_share_grows(
            key in ".*", small in 0_u16..=10_000, more in 0_u16..=10_000,
        ) {
            let (small, large) = (small.min(more), small.max(more));
            let [small, large] = [small, large].map(|steps| share(f64::from(steps) / 100.0, "s"));
            prop_assert!(!small.holds(key.as_bytes()) || large.holds(key.as_bytes()));
            prop_assert!(share(100.0, "s").holds(key.as_bytes()));
            prop_assert!(!share(0.0, "s").holds(key.as_bytes()));
        }
    }
}
