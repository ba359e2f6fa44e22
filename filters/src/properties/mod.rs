//! What an operator writes, and how it becomes rules.

mod condition;
mod missing;
mod odd;
mod rule;
mod s1;
mod spelling;
mod test;
mod window;

pub use self::condition::{ConditionProperties, KeyProperties, NoKey, PercentageProperties};
pub use self::missing::{warn_of_missing, warn_of_places};
pub use self::rule::{RuleProperties, Timestamp, rules_of};
pub use self::s1::GrayGatewayProperties;
pub use self::test::TestProperties;
pub use self::window::{WeekdayWord, WindowProperties};
