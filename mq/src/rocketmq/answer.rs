//! What an answer says, or why it says nothing.

use serde::de::DeserializeOwned;

use super::command::Command;
use super::{Connection, RocketMqError};

const SUCCESS: i32 = 0;

pub(super) fn succeeded(from: &Connection, answer: Command) -> Result<Command, RocketMqError> {
    if answer.code == SUCCESS { Ok(answer) } else { Err(refused(from, answer)) }
}

pub(super) fn refused(from: &Connection, answer: Command) -> RocketMqError {
    let address = from.address().to_owned();
    RocketMqError::Refused { address, code: answer.code, remark: answer.remark }
}

pub(super) fn garbled(from: &Connection, what: &str) -> RocketMqError {
    RocketMqError::Garbled { address: from.address().to_owned(), what: what.to_owned() }
}

pub(super) fn json_of<T: DeserializeOwned>(
    from: &Connection,
    answer: &Command,
) -> Result<T, RocketMqError> {
    serde_json::from_slice(&answer.body).map_err(|error| garbled(from, &error.to_string()))
}
