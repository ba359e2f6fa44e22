use futures_util::future;
use futures_util::stream::{BoxStream, StreamExt, select_all};

use super::{ConfigSource, Update};
use crate::Documents;

/// Several sources that together make one set of documents.
///
/// Nothing is said before each source has answered; where two know a document of the same name, the
/// later source wins.
pub struct Merged(Vec<Box<dyn ConfigSource>>);

impl std::fmt::Debug for Merged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Merged({} sources)", self.0.len())
    }
}

impl Merged {
    /// Merges sources, the weakest first.
    pub fn new(sources: Vec<Box<dyn ConfigSource>>) -> Self {
        Self(sources)
    }
}

impl ConfigSource for Merged {
    fn updates(self: Box<Self>) -> BoxStream<'static, Update> {
        let latest: Vec<Option<Documents>> = vec![None; self.0.len()];
        let numbered =
            self.0.into_iter().enumerate().map(|(number, source)| {
                source.updates().map(move |update| (number, update)).boxed()
            });
        select_all(numbered)
            .scan(latest, |latest, (number, update)| {
                future::ready(Some(merge(latest, number, update)))
            })
            .filter_map(future::ready)
            .boxed()
    }
}

/// Notes the news of one source, and returns what it means for the whole.
fn merge(latest: &mut [Option<Documents>], number: usize, update: Update) -> Option<Update> {
    match update {
        Update::Unavailable(error) => Some(Update::Unavailable(error)),
        Update::Documents(documents) => {
            *latest.get_mut(number)? = Some(documents);
            let all: Option<Vec<&Documents>> = latest.iter().map(Option::as_ref).collect();
            let all = all?.into_iter().flat_map(|documents| documents.0.clone()).collect();
            Some(Update::Documents(Documents(all)))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    struct Fixed(Vec<Update>);

    impl ConfigSource for Fixed {
        fn updates(self: Box<Self>) -> BoxStream<'static, Update> {
            stream::iter(self.0).boxed()
        }
    }

    fn source(documents: &[(&str, &str)]) -> Box<dyn ConfigSource> {
        let update = |(name, text): &(&str, &str)| Update::Documents(Documents::one(*name, *text));
        Box::new(Fixed(documents.iter().map(update).collect()))
    }

    #[tokio::test]
    async fn speaks_when_every_source_has_answered() {
        let merged = Merged::new(vec![source(&[("a", "1"), ("a", "2")]), source(&[("b", "3")])]);
        let updates: Vec<Update> = Box::new(merged).updates().collect().await;
        let Some(Update::Documents(last)) = updates.last() else { panic!("nothing came") };
        assert_eq!(last.0.len(), 2);
        assert_eq!(&*last.0["a"], "2");
    }

    #[tokio::test]
    async fn stays_silent_while_a_source_has_not_answered() {
        let merged = Merged::new(vec![source(&[("a", "1")]), source(&[])]);
        assert_eq!(Box::new(merged).updates().count().await, 0);
    }
}
