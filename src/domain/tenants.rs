//! Tenants, as operators make them.

use crate::{
    storage::{
        StorageError, WriteTx,
        global::tenants::{self, TenantRow},
    },
    vocab::{Malformed, Op, TenantId},
};

/// A tenant's name is typed by people who sign in, and is part of addresses: 1 to 64 of `a-z`,
/// `0-9` and `-`, the first and last no `-`.
///
/// # Errors
/// When it is anything else.
pub fn parse_name(text: &str) -> Result<&str, Malformed> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edges = !text.starts_with('-') && !text.ends_with('-');
    if (1..=64).contains(&text.len()) && edges && text.bytes().all(ok) {
        Ok(text)
    } else {
        Err(Malformed::new("tenant name", "1 to 64 of a-z, 0-9 and -, no - at either end"))
    }
}

/// Records a new tenant; `name` is one that [`parse_name`] let through.
///
/// # Errors
/// `Conflict(TenantName)` when the name is taken.
pub async fn create(tx: &mut WriteTx, name: &str, op: &Op) -> Result<TenantRow, StorageError> {
    tenants::create(tx, TenantId::mint(op), name, op.now()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_fit_for_an_address() {
        for good in ["demo", "a", "7", "acme-eu-2"] {
            assert_eq!(parse_name(good), Ok(good));
        }
        for bad in ["", "-a", "a-", "Demo", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
