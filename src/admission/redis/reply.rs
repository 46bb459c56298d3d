//! A script's answer, read from the front.

use redis::{FromRedisValue, Value};

use crate::admission::redis::StoreError;

/// What is left to read of an answer.
pub struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    pub fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    pub fn text(&mut self) -> Result<String, StoreError> {
        self.read("a text")
    }

    /// Returns a number, which Lua may have written as a text.
    pub fn number<T: FromRedisValue>(&mut self) -> Result<T, StoreError> {
        self.read("a number")
    }

    pub fn numbers(&mut self) -> Result<Vec<u32>, StoreError> {
        self.read("numbers")
    }

    pub fn texts(&mut self) -> Result<Vec<String>, StoreError> {
        self.read("texts")
    }

    pub fn replies(&mut self) -> Result<Vec<Self>, StoreError> {
        let entries: Vec<Vec<Value>> = self.read("entries")?;
        Ok(entries.into_iter().map(Self::new).collect())
    }

    fn read<T: FromRedisValue>(&mut self, what: &'static str) -> Result<T, StoreError> {
        let value = self.0.next().ok_or(StoreError::Garbled(what))?;
        redis::from_redis_value(value).map_err(|_| StoreError::Garbled(what))
    }
}
