use gray_propagation::Lane;

use crate::Side;

/// Names consumer groups: that of the base environment, and its twin in each lane, `<group>_<lane>`
/// (seed S2).
///
/// What stands behind the last `_` is the lane, so that no lane has one: `order_user_gray` is the
/// twin of `order_user`, and of nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupName(String);

/// Why there can be no group of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGroup {
    /// The name of the group itself.
    #[error(
        "{0:?} is no consumer group: 1 to {MAX_LEN} letters, digits, `-`, `_`, `%` and `|` are"
    )]
    Name(String),
    /// A lane.
    #[error(
        "lane `{0}` has no consumer group, whose names have only letters, digits and `-` behind the \
         last `_`; give the lane another name"
    )]
    Lane(Lane),
}

/// The longest name of a group, with the lane: a broker's own limit is 255, and its retry topic's
/// name, which is at most 127 long, begins with `%RETRY%`.
const MAX_LEN: usize = 120;

impl GroupName {
    /// Takes the name of the base environment's group.
    ///
    /// # Errors
    ///
    /// Where a broker would not accept it.
    pub fn new(name: &str) -> Result<Self, InvalidGroup> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_%|".contains(&byte);
        if name.is_empty() || name.len() > MAX_LEN || !name.bytes().all(letter) {
            return Err(InvalidGroup::Name(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the group of the base environment.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the group of a side.
    ///
    /// # Errors
    ///
    /// Where a lane cannot be expressed: to leave something out of its name would be to share the
    /// group of another.
    pub fn of(&self, side: Side) -> Result<String, InvalidGroup> {
        let Side::Lane(lane) = side else { return Ok(self.0.clone()) };
        Self::of_any(lane)?;
        let twin = format!("{}_{lane}", self.0);
        if twin.len() > MAX_LEN { Err(InvalidGroup::Name(twin)) } else { Ok(twin) }
    }

    /// Tells whether any group can have a twin in a lane.
    ///
    /// # Errors
    ///
    /// Where none can.
    pub(crate) fn of_any(lane: Lane) -> Result<(), InvalidGroup> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let fits = lane.as_str().bytes().all(letter);
        if fits { Ok(()) } else { Err(InvalidGroup::Lane(lane)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(group: &str, lane: &str, expected: Option<&str>) {
        let side = Side::Lane(lane.parse().unwrap());
        let twin = GroupName::new(group).and_then(|group| group.of(side));
        assert_eq!(twin.ok().as_deref(), expected, "{group} {lane}");
    }

    #[test]
    fn a_twin_is_named_after_the_group_and_the_lane() {
        check("group1", "gray", Some("group1_gray"));
        check("order_user", "gray", Some("order_user_gray"));
        check("order", "team-a", Some("order_team-a"));
        // Both would otherwise be the twin of the group above.
        check("order", "user_gray", None);
        check("order", "v2.1", None);
        check("", "gray", None);
        check("a b", "gray", None);
        check(&"x".repeat(116), "gray", None);
        assert_eq!(GroupName::new("a").unwrap().of(Side::Base).as_deref(), Ok("a"));
    }
}
