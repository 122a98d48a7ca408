//! A tenant's people: who may be one, and what administrators may do to them.
//!
//! A tenant that has an administrator keeps one: the last who is not suspended cannot be suspended,
//! deleted or made less, except by an operator, who can make another. Nobody gives, or takes over, what
//! goes beyond their own scopes. A user's sessions end with a suspension, a deletion and a new password, in
//! the same transaction.

use super::{
    items::precondition::Match,
    write::{Refused, WorkError},
};
use crate::{
    storage::{
        Constraint, StorageError, TenantScope, WriteTx,
        global::{
            sessions,
            users::{self, UserChange, UserRow},
        },
    },
    vocab::{Malformed, Op, Role, Scope, Scopes, SessionId, UserId},
};

pub use crate::storage::global::users::NewUser as Draft;

/// Longest name, in characters.
pub const NAME_CHARS_MAX: usize = 100;

/// A person's name is whatever they say it is.
///
/// # Errors
/// When nothing of it can be seen, it is too long, or a line of a log could not hold it.
pub fn parse_name(text: &str) -> Result<&str, Malformed> {
    let long = text.chars().nth(NAME_CHARS_MAX).is_some();
    if text.trim().is_empty() || long || text.contains(char::is_control) {
        let expected = "1 to 100 characters, not only white space, no control characters";
        return Err(Malformed::new("name", expected));
    }
    Ok(text)
}

/// With whose right users are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Whoever has the settings in hand.
    Operator,
    /// An administrator of the tenant, with these scopes.
    Administrator(Scopes),
    /// The user. Of their role they change nothing.
    Oneself,
}

impl Right {
    /// Who is not allowed a thing cannot have it done by another whom they make, or whose password
    /// they set.
    fn covers(self, role: Role) -> Result<(), Refused> {
        let lacks = |scope: &Scope| match self {
            Self::Operator | Self::Oneself => false,
            Self::Administrator(scopes) => !scopes.contains(*scope),
        };
        role.scopes().iter().find(lacks).map_or(Ok(()), |scope| Err(Refused::Beyond(scope)))
    }
}

/// One user, who changes them, and in which version the caller knows them; `None` is any.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub scope: &'a TenantScope,
    pub id: UserId,
    pub matches: Option<&'a Match>,
    pub right: Right,
}

/// Records somebody who makes an account of their own, in the role that the settings give.
///
/// # Errors
/// [`Refused::EmailTaken`].
pub async fn register(
    tx: &mut WriteTx,
    scope: &TenantScope,
    draft: &Draft<'_>,
    op: &Op,
) -> Result<UserRow, WorkError> {
    users::insert(tx, scope, draft, op.now()).await.map_err(told)
}

/// Records somebody whom an administrator makes.
///
/// # Errors
/// [`Refused::EmailTaken`], [`Refused::Beyond`].
pub async fn create(
    tx: &mut WriteTx,
    scope: &TenantScope,
    right: Right,
    draft: &Draft<'_>,
    op: &Op,
) -> Result<UserRow, WorkError> {
    right.covers(draft.role)?;
    register(tx, scope, draft, op).await
}

/// Changes name, role or address.
///
/// # Errors
/// [`Refused`] when there is no such user, they are in another version, the address is taken, the
/// tenant would be left without an administrator, or it goes beyond the caller's right.
pub async fn change(
    tx: &mut WriteTx,
    subject: Subject<'_>,
    change: &UserChange<'_>,
    op: &Op,
) -> Result<UserRow, WorkError> {
    let (current, others) = lock(tx, subject, change.role.is_some()).await?;
    if let Some(role) = change.role {
        subject.right.covers(role)?;
        if role != Role::Admin {
            keeps_an_admin(subject, &current, others)?;
        }
    }
    // Whose address one has, one can have the password of sent.
    if change.role.is_some() || change.email.is_some() {
        subject.right.covers(current.role)?;
    }
    let next = current.version + 1;
    let changed = users::update(tx, subject.scope, subject.id, next, change, op.now()).await;
    let changed = changed.map_err(told)?;
    if changed.role != current.role {
        sessions::have_changed(tx, subject.id, op.now()).await?;
    }
    Ok(changed)
}

/// Gives a user another password. Their sessions end with it, but the one that is `kept`.
///
/// # Errors
/// [`Refused`] when there is no such user, they are in another version, or it goes beyond the caller's
/// right.
pub async fn set_password(
    tx: &mut WriteTx,
    subject: Subject<'_>,
    hash: &str,
    kept: Option<SessionId>,
    op: &Op,
) -> Result<UserRow, WorkError> {
    let (current, _) = lock(tx, subject, false).await?;
    subject.right.covers(current.role)?;
    let (next, now) = (current.version + 1, op.now());
    let done = users::set_password(tx, subject.scope, subject.id, next, hash, now).await;
    let done = done.map_err(told)?;
    sessions::end_all(tx, subject.scope, subject.id, kept, now).await?;
    Ok(done)
}

/// Ends a user's sessions but the one that is `kept`, on every device and in every region. Returns how many
/// were known.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn end_sessions(
    tx: &mut WriteTx,
    subject: Subject<'_>,
    kept: Option<SessionId>,
    op: &Op,
) -> Result<u64, WorkError> {
    lock(tx, subject, false).await?;
    Ok(sessions::end_all(tx, subject.scope, subject.id, kept, op.now()).await?)
}

/// Ends one session of a user.
///
/// # Errors
/// [`Refused::NotFound`] when there is none, or it is over.
pub async fn end_session(
    tx: &mut WriteTx,
    subject: Subject<'_>,
    id: SessionId,
    op: &Op,
) -> Result<(), WorkError> {
    lock(tx, subject, false).await?;
    let ended = sessions::end(tx, subject.scope, subject.id, id, op.now()).await?;
    if ended { Ok(()) } else { Err(Refused::NotFound.into()) }
}

/// Keeps a user out until they are resumed. Suspending them twice is suspending them once.
///
/// # Errors
/// [`Refused`] when there is no such user, they are in another version, or the tenant would be left
/// without an administrator.
pub async fn suspend(
    tx: &mut WriteTx,
    subject: Subject<'_>,
    op: &Op,
) -> Result<UserRow, WorkError> {
    let (current, others) = lock(tx, subject, true).await?;
    if current.suspended_at.is_some() {
        return Ok(current);
    }
    keeps_an_admin(subject, &current, others)?;
    let (next, now) = (current.version + 1, op.now());
    let done = users::set_suspended(tx, subject.scope, subject.id, next, Some(now), now).await;
    let done = done.map_err(told)?;
    sessions::end_all(tx, subject.scope, subject.id, None, now).await?;
    Ok(done)
}

/// Ends a suspension. Of who is not suspended it changes nothing.
///
/// # Errors
/// [`Refused`] when there is no such user, they are in another version, or it goes beyond the caller's
/// right.
pub async fn resume(tx: &mut WriteTx, subject: Subject<'_>, op: &Op) -> Result<UserRow, WorkError> {
    let (current, _) = lock(tx, subject, false).await?;
    if current.suspended_at.is_none() {
        return Ok(current);
    }
    subject.right.covers(current.role)?;
    let next = current.version + 1;
    let done = users::set_suspended(tx, subject.scope, subject.id, next, None, op.now()).await;
    done.map_err(told)
}

/// Erases all that is personal of a user for good; their id stays taken. Returns who they were.
///
/// # Errors
/// [`Refused`] when there is no such user, they are in another version, or the tenant would be left
/// without an administrator.
pub async fn delete(tx: &mut WriteTx, subject: Subject<'_>, op: &Op) -> Result<UserRow, WorkError> {
    let (current, others) = lock(tx, subject, true).await?;
    keeps_an_admin(subject, &current, others)?;
    let next = current.version + 1;
    if !users::delete(tx, subject.scope, subject.id, next, op.now()).await? {
        return Err(Refused::NotFound.into());
    }
    sessions::end_all(tx, subject.scope, subject.id, None, op.now()).await?;
    sessions::erase(tx, subject.id).await?;
    Ok(current)
}

/// The user as they are, locked until the transaction ends, if in a version that the caller knows; and
/// whether there is another administrator, asked for where one may be lost.
async fn lock(
    tx: &mut WriteTx,
    subject: Subject<'_>,
    may_lose_an_admin: bool,
) -> Result<(UserRow, bool), WorkError> {
    let others = may_lose_an_admin && subject.right != Right::Operator;
    let others = others && users::lock_other_admins(tx, subject.scope, subject.id).await?;
    let current = users::lock(tx, subject.scope, subject.id).await?.ok_or(Refused::NotFound)?;
    match subject.matches {
        Some(matches) if !matches.holds(current.etag()) => {
            Err(Refused::UserConflict(Box::new(current)).into())
        }
        _ => Ok((current, others)),
    }
}

fn keeps_an_admin(subject: Subject<'_>, current: &UserRow, others: bool) -> Result<(), Refused> {
    let kept = others || !current.administers() || subject.right == Right::Operator;
    if kept { Ok(()) } else { Err(Refused::LastAdmin) }
}

fn told(error: StorageError) -> WorkError {
    match error {
        StorageError::Conflict(Constraint::UserEmail) => Refused::EmailTaken.into(),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests;
