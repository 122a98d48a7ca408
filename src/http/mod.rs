//! The program as HTTP: three listeners, one table of routes, one gate.
//!
//! Refuses whatever is not in the table, and every bad input, with a problem document (RFC 9457);
//! only `problem` knows status codes. A handler gets typed input and a `Caller`, and never asks
//! where it runs: the gate has decided. When the database dies, reads go to the primary; when the
//! primary cannot be reached, reads go on and writes are refused with `Retry-After`; when Redis
//! dies, each process limits rates by itself.

mod account;
pub mod admin;
pub mod app;
mod body;
mod caller;
mod cookies;
mod docs;
mod fields;
mod gate;
mod gauges;
mod headers;
mod health;
mod hold;
mod hop;
mod internal;
mod items;
pub mod limits;
mod observe;
pub mod openapi;
mod page;
mod people;
pub mod problem;
mod query;
mod request;
pub mod routes;
mod secrets;
pub mod server;
mod session;
mod sessions;
mod site;
mod writes;

pub use app::App;
pub use items::one::item_answer;
pub use server::{ServerError, Servers};
