//! Medians, and how sure they are.

/// How often it is drawn again.
const DRAWS: usize = 2_000;

/// A median with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Returns the median; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    }
}

/// Returns the median, and by bootstrap where that of other runs would be.
pub(crate) fn median_of(values: &[f64]) -> Median {
    let mut random = fastrand::Rng::with_seed(1);
    let mut draw = || {
        let again = || values.get(random.usize(..values.len().max(1))).copied().unwrap_or_default();
        median(&std::iter::repeat_with(again).take(values.len()).collect::<Vec<_>>())
    };
    let mut draws: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
    draws.sort_by(f64::total_cmp);
    let at = |place: usize| draws.get(place).copied().unwrap_or_default();
    Median { value: median(values), low: at(DRAWS / 40), high: at(DRAWS - DRAWS / 40 - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_in_the_middle_of_its_interval() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        let values: Vec<f64> = (0..101).map(f64::from).collect();
        let Median { value, low, high } = median_of(&values);
        assert!((value - 50.0).abs() < f64::EPSILON);
        // Of a hundred values evenly apart the interval is about ten to each side.
        assert!((35.0..45.0).contains(&low) && (55.0..65.0).contains(&high), "{low} {high}");
    }
}
