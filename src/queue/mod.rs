//! What a region owes to the primary: kept in the region until the primary has it, whatever the primary does
//! meanwhile.
//!
//! Everything here may be sent twice and come late: what it is applied to makes the same of it. When the
//! region's Redis dies, what no other region was told is lost with it, and nothing else.

pub mod sessions;

pub use sessions::{Heard, RecordError, Registrar, RegistrarLoop};
