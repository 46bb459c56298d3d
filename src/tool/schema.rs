//! What a tool's arguments have to be: JSON Schema, without anything that would have to be fetched.

use std::{fmt, sync::Arc};

use jsonschema::{PatternOptions, Validator};
use serde_json::{Value, json};

/// The longest schema, in bytes.
pub const LONGEST: usize = 8 << 10;
/// How many of an argument's mistakes the agent is told, and how much of each, in bytes.
const TOLD: usize = 3;
const TOLD_OF_EACH: usize = 300;

/// What a tool's arguments have to be.
#[derive(Clone)]
pub struct Schema {
    value: Value,
    validator: Arc<Validator>,
}

/// Why a text or a table is no schema of arguments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("not JSON: {0}")]
    NotJson(String),
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    #[error("the arguments of a tool are an object: \"type\" has to be \"object\"")]
    NotAnObject,
    #[error("not a JSON schema: {0}")]
    NotASchema(String),
}

/// What is wrong with arguments, as the agent is told.
#[derive(Debug)]
pub struct NotValid(pub String);

impl Schema {
    /// # Errors
    /// If the value is no schema, or needs something from elsewhere.
    pub fn new(value: Value) -> Result<Self, SchemaError> {
        if value.to_string().len() > LONGEST {
            return Err(SchemaError::TooLong);
        }
        if value["type"] != "object" {
            return Err(SchemaError::NotAnObject);
        }
        // Patterns are an operator's and what they are held to is an agent's: the engine that
        // takes no more than linear time.
        let options = jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::regex());
        let built = options.build(&value);
        let validator = built.map_err(|error| SchemaError::NotASchema(cut(error.to_string())))?;
        Ok(Self {
            value,
            validator: Arc::new(validator),
        })
    }

    /// Nothing has to be said at all, and nothing can be.
    ///
    /// # Errors
    /// None: the schema is our own.
    pub fn without_arguments() -> Result<Self, SchemaError> {
        Self::new(json!({ "type": "object", "properties": {}, "additionalProperties": false }))
    }

    /// # Errors
    /// If the text is not JSON, or what it says is no schema.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        let value = serde_json::from_str(text);
        Self::new(value.map_err(|error| SchemaError::NotJson(error.to_string()))?)
    }

    pub fn as_value(&self) -> &Value {
        &self.value
    }

    /// Reads arguments; none at all are an empty object.
    ///
    /// # Errors
    /// If they are not what the schema asks for.
    pub fn read(&self, arguments: &str) -> Result<Value, NotValid> {
        let arguments = match arguments.trim() {
            "" => "{}",
            some => some,
        };
        let arguments: Value = serde_json::from_str(arguments)
            .map_err(|error| NotValid(format!("the arguments are not JSON: {error}")))?;
        let mistakes = self.validator.iter_errors(&arguments).take(TOLD);
        let mistakes: Vec<String> = mistakes
            .map(|mistake| cut(format!("{}: {mistake}", mistake.instance_path())))
            .collect();
        if mistakes.is_empty() {
            Ok(arguments)
        } else {
            let mistakes = mistakes.join("; ");
            Err(NotValid(format!("the arguments are wrong: {mistakes}")))
        }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TOLD_OF_EACH));
    text
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value // The rest is made of it.
    }
}

impl Eq for Schema {}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
