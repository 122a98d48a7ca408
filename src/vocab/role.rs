//! What a user is to a tenant.

use super::{Malformed, Scope, Scopes};
use std::{fmt, str::FromStr};

/// A user's one role, which stands for scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything, users and keys too.
    Admin,
    /// Reads and writes.
    Editor,
    /// Reads.
    Viewer,
    /// Nothing of the tenant's: an account, and no more.
    Guest,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Editor, Self::Viewer, Self::Guest];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Viewer => "viewer",
            Self::Guest => "guest",
        }
    }

    /// What a user of this role may do.
    #[must_use]
    pub fn scopes(self) -> Scopes {
        let scopes: &[Scope] = match self {
            Self::Admin => &[Scope::Read, Scope::Write, Scope::Admin],
            Self::Editor => &[Scope::Read, Scope::Write],
            Self::Viewer => &[Scope::Read],
            Self::Guest => &[],
        };
        scopes.iter().copied().collect()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl FromStr for Role {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or(Malformed::new("role", "admin, editor, viewer or guest"))
    }
}
super::serde_as_text!(Role);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_more_than_the_next() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        for pair in Role::ALL.windows(2) {
            let (more, less) = (pair[0].scopes(), pair[1].scopes());
            assert!(less.iter().all(|scope| more.contains(scope)), "{pair:?}");
            assert!(more.iter().count() > less.iter().count(), "{pair:?}");
        }
        assert!(Role::Guest.scopes().is_empty());
        assert!("Admin".parse::<Role>().is_err());
    }
}
