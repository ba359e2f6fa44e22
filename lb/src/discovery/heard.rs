use std::collections::HashMap;

use crate::{Announced, ServiceName};

/// How a server came to say something: an answer is never out of date, a push may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It was asked.
    Asked,
    /// It pushed.
    Unasked,
}

/// The newest word about each service on one connection, by the server's clock.
#[derive(Debug, Default)]
pub(super) struct Heard(HashMap<ServiceName, (i64, Vec<Announced>)>);

impl Heard {
    /// Forgets everything, as for a new connection.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes a word, and tells whether it is news: neither a push that is older than what is known,
    /// nor the same once more. That there is nothing is news each time, since it is doubted.
    pub(super) fn is_news(
        &mut self,
        service: &ServiceName,
        time: i64,
        announced: &[Announced],
        said: Said,
    ) -> bool {
        if let Some((newest, known)) = self.0.get_mut(service) {
            if said == Said::Unasked && time > 0 && time < *newest {
                return false;
            }
            if known == announced && !announced.is_empty() {
                // It says nothing new, but what is older than this is out of date now.
                *newest = time;
                return false;
            }
        }
        self.0.insert(service.clone(), (time, announced.to_vec()));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the server says at a time: that the service has one instance, at that port.
    fn at(time: i64) -> Vec<Announced> {
        vec![Announced {
            ip: "10.0.0.1".to_owned(),
            port: time,
            weight: 1.0,
            healthy: true,
            enabled: true,
            cluster: None,
            metadata: std::collections::BTreeMap::new(),
        }]
    }

    proptest! {
        #[test]
        fn pushes_in_any_order_never_roll_back(
            times in prop::collection::vec(1_i64..50, 1..40).prop_shuffle(),
        ) {
            let service = ServiceName::new("a");
            let mut heard = Heard::default();
            let news: Vec<i64> = times
                .iter()
                .copied()
                .filter(|time| heard.is_news(&service, *time, &at(*time), Said::Unasked))
                .collect();
            prop_assert!(news.is_sorted(), "{news:?} of {times:?}");
            prop_assert_eq!(news.last(), times.iter().max());
            let mut once = news.clone();
            once.dedup();
            prop_assert_eq!(once, news, "said twice");
        }
    }

    #[test]
    fn what_is_older_than_an_answer_that_said_nothing_new_is_out_of_date() {
        let service = ServiceName::new("a");
        let mut heard = Heard::default();
        assert!(heard.is_news(&service, 10, &at(1), Said::Unasked));
        assert!(!heard.is_news(&service, 20, &at(1), Said::Asked));
        assert!(!heard.is_news(&service, 15, &at(2), Said::Unasked));
        assert!(heard.is_news(&service, 21, &at(2), Said::Unasked));
    }

    #[test]
    fn an_answer_counts_whatever_the_clock_says() {
        let service = ServiceName::new("a");
        let mut heard = Heard::default();
        assert!(heard.is_news(&service, 9, &at(9), Said::Unasked));
        assert!(!heard.is_news(&service, 5, &at(5), Said::Unasked));
        assert!(heard.is_news(&service, 5, &at(5), Said::Asked));
        // A server that was restarted with a clock that runs behind pushes what is new all the same.
        assert!(heard.is_news(&service, 6, &at(6), Said::Unasked));
        assert!(heard.is_news(&service, 7, &[], Said::Unasked));
        assert!(heard.is_news(&service, 7, &[], Said::Unasked));
    }
}
