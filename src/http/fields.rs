//! The members of a small JSON body, each refused by its own pointer.

use super::problem::{Fault, Kind, Problem};
use crate::{domain::items::data::parse_value, vocab::Malformed};
use secrecy::SecretString;
use serde_json::{Map, Value};

/// A body whose members are taken out one by one. What is wrong is told all at once, at the end, and no
/// value is ever repeated: it could be a password in the wrong place.
pub struct Fields {
    members: Map<String, Value>,
    faults: Vec<Fault>,
}

impl Fields {
    /// # Errors
    /// When the body is not a JSON object.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        match parse_value(body)? {
            Value::Object(members) => Ok(Self { members, faults: Vec::new() }),
            _ => Err(Problem::new(Kind::Validation, "Send a JSON object.")),
        }
    }

    /// A member that may be absent.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Option<T> {
        let parsed = match self.members.remove(name)? {
            Value::String(text) => parse(&text),
            _ => Err(Malformed::new(name, "a text")),
        };
        self.keep(name, parsed)
    }

    /// A member that must be there.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Option<T> {
        self.demand(name);
        self.optional(name, parse)
    }

    /// A secret that may be absent.
    pub fn secret<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&SecretString) -> Result<T, Malformed>,
    ) -> Option<T> {
        let parsed = match self.members.remove(name)? {
            Value::String(text) => parse(&text.into()),
            _ => Err(Malformed::new(name, "a text")),
        };
        self.keep(name, parsed)
    }

    /// Complains of a member that is absent.
    pub fn demand(&mut self, name: &'static str) {
        if !self.members.contains_key(name) {
            self.faults.push(Fault::new(name, "is missing"));
        }
    }

    fn keep<T>(&mut self, name: &'static str, parsed: Result<T, Malformed>) -> Option<T> {
        let keep = |malformed: Malformed| {
            self.faults.push(Fault::new(name, format!("expected {}", malformed.expected)));
        };
        parsed.map_err(keep).ok()
    }

    /// What was made of the members, if nothing was wrong and none is left.
    ///
    /// # Errors
    /// A problem with a pointer for each fault.
    pub fn end<T>(mut self, made: Option<T>) -> Result<T, Problem> {
        let unknown = self.members.keys().map(|name| Fault::new(name, "is not known here"));
        self.faults.extend(unknown);
        match made {
            Some(made) if self.faults.is_empty() => Ok(made),
            _ => Err(Problem::faults(&self.faults)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::{ResponseError as _, body::to_bytes};

    async fn faults(body: &str) -> Value {
        let mut fields = Fields::read(body.as_bytes()).unwrap();
        let role = fields.required("role", |text| text.parse::<crate::vocab::Role>());
        let secret = fields.secret("password", |secret| Ok(secret.clone()));
        let Err(problem) = fields.end(role.zip(secret)) else { return Value::Null };
        let document = to_bytes(problem.error_response().into_body()).await.unwrap();
        assert!(!String::from_utf8_lossy(&document).contains("hunter2"));
        serde_json::from_slice::<Value>(&document).unwrap()["errors"].clone()
    }

    #[actix_web::test]
    async fn every_fault_has_its_pointer_and_no_value_is_repeated() {
        assert_eq!(faults(r#"{"role":"admin","password":"hunter2"}"#).await, Value::Null);
        let found = faults(r#"{"role":"hunter2","password":["hunter2"],"a/b~":"hunter2"}"#).await;
        let pointers = found.as_array().unwrap().iter().map(|fault| fault["pointer"].as_str());
        let pointers: Vec<_> = pointers.flatten().collect();
        assert_eq!(pointers, ["#/role", "#/password", "#/a~1b~0"]);
        let missing = faults(r#"{"password":"hunter2"}"#).await;
        assert_eq!(missing[0]["detail"], "is missing");
        for body in ["[]", "null", "1"] {
            assert!(Fields::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
