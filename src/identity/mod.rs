//! From a credential to who is asking.
//!
//! A credential is parsed before anything is looked up, so that garbage costs a checksum and no
//! query. A key found in the local replica is believed for a bounded time; a key *not* found there
//! proves nothing, since the replica may be behind: it is never cached and never a 401 by itself,
//! the primary decides. When the replica cannot be asked, the primary is.
//!
//! Passwords are hashed and compared here. A session's token is signed ([`token`]), looked up in the
//! region's Redis and in its replica's directory ([`sessions`]), and when neither knows it, where it began
//! and at the primary, which is the gate's to ask. A session that was ended is never known again, whatever
//! comes late. OAuth tokens are to be another way to a [`Principal`].

pub mod key;
pub mod password;
pub mod resolve;
pub mod sessions;
pub mod token;

pub use key::ApiKeySecret;
pub use password::{Password, PasswordError, Passwords, StoredHash};
pub use resolve::{Credential, Principal, Resolved, Resolver};
pub use sessions::{Lookup, Sessions};
pub use token::{SessionToken, TokenKeys};
