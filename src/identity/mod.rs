//! From a credential to who is asking.
//!
//! A credential is parsed before anything is looked up, so that garbage costs a checksum and no
//! query. A key found in the local replica is believed for a bounded time; a key *not* found there
//! proves nothing, since the replica may be behind: it is never cached and never a 401 by itself,
//! the primary decides. When the replica cannot be asked, the primary is.
//!
//! Passwords are hashed and compared here; signing in with one, and the sessions that come of it, are
//! to stand beside [`resolve`], as another way to a [`Principal`].

pub mod key;
pub mod password;
pub mod resolve;

pub use key::ApiKeySecret;
pub use password::{Password, PasswordError, Passwords, StoredHash};
pub use resolve::{Principal, Resolved, Resolver};
