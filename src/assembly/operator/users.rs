//! Users, by an operator's commands.

use super::{Operator, PAGE, every, told};
use crate::{
    domain::users::{self as people, Draft, Right, Subject, parse_name},
    identity::{Password, PasswordError},
    storage::{
        StorageError, TenantScope, WriteTx,
        global::users::{self as stored_users, UserRow},
    },
    vocab::{Email, Role, UserId},
};
use anyhow::Context as _;
use secrecy::SecretString;

/// A user to be made.
#[derive(Debug, Clone)]
pub struct UserWish<'a> {
    pub tenant: &'a str,
    pub email: &'a str,
    pub name: &'a str,
    pub role: Role,
    pub password: Option<NewPassword>,
}

/// Where a password comes from.
#[derive(Debug, Clone)]
pub enum NewPassword {
    Given(SecretString),
    /// To be made here, and told.
    Made,
}

/// A user, and the password that was made for them.
pub type WithPassword = (UserRow, Option<String>);

/// A user of a tenant, by id or e-mail address.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    pub tenant: &'a str,
    pub user: &'a str,
}

/// What is done to a user, beside giving them a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Suspend,
    Resume,
    Delete,
}

impl Deed {
    const fn word(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Delete => "delete",
        }
    }
}

impl Operator {
    /// Makes a user. Only the hash of the password goes to the database.
    ///
    /// # Errors
    /// When the wish is unfit, there is no such tenant, somebody there has the address, or the database
    /// fails.
    pub async fn create_user(&self, wish: &UserWish<'_>) -> anyhow::Result<WithPassword> {
        let (email, name): (Email, _) = (wish.email.parse()?, parse_name(wish.name)?);
        let scope = self.scope(wish.tenant).await?;
        let about = [email.as_str(), name, wish.tenant];
        let (hash, shown) = match &wish.password {
            Some(password) => {
                let (hash, shown) = self.hash(password, &about).await?;
                (Some(hash), shown)
            }
            None => (None, None),
        };
        let draft = Draft {
            id: UserId::mint(&self.op),
            email: &email,
            name,
            role: wish.role,
            password_hash: hash.as_deref(),
        };
        let mut tx = WriteTx::open(&self.global, self.epoch, &self.op).await?;
        let made = people::create(&mut tx, &scope, Right::Operator, &draft, &self.op).await;
        let made = made.map_err(told)?;
        self.record(&mut tx, &scope, &format!("user create {}", made.id)).await?;
        tx.commit().await?;
        Ok((made, shown))
    }

    /// Every user of a tenant, in the order of their making.
    ///
    /// # Errors
    /// When there is no such tenant, or the database fails.
    pub async fn users(&self, tenant: &str) -> anyhow::Result<Vec<UserRow>> {
        let scope = self.scope(tenant).await?;
        every(async |last: Option<&UserRow>| {
            stored_users::list(&self.global, &scope, last.map(|row| row.id), PAGE).await
        })
        .await
    }

    /// # Errors
    /// When there is none such, or the database fails.
    pub async fn user(&self, named: Named<'_>) -> anyhow::Result<UserRow> {
        let scope = self.scope(named.tenant).await?;
        self.known(&scope, named).await
    }

    async fn look_up(
        &self,
        scope: &TenantScope,
        user: &str,
    ) -> Result<Option<UserRow>, StorageError> {
        if let Ok(id) = user.parse() {
            return Ok(stored_users::find(&self.global, scope, id).await?.value);
        }
        let Ok(email) = user.parse() else { return Ok(None) };
        Ok(stored_users::find_by_email(&self.global, scope, &email).await?.value)
    }

    async fn known(&self, scope: &TenantScope, named: Named<'_>) -> anyhow::Result<UserRow> {
        let found = self.look_up(scope, named.user).await?;
        let Named { tenant, user } = named;
        found.with_context(|| format!("`{tenant}` has no user `{user}` (an id or an address)"))
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// When there is none such, the password is too easy to guess, or the database fails.
    pub async fn set_user_password(
        &self,
        named: Named<'_>,
        password: &NewPassword,
    ) -> anyhow::Result<WithPassword> {
        let scope = self.scope(named.tenant).await?;
        let UserRow { id, email, name, .. } = self.known(&scope, named).await?;
        let (hash, shown) = self.hash(password, &[&email, &name, named.tenant]).await?;
        let mut tx = WriteTx::open(&self.global, self.epoch, &self.op).await?;
        let subject = Subject { scope: &scope, id, matches: None, right: Right::Operator };
        let row =
            people::set_password(&mut tx, subject, &hash, None, &self.op).await.map_err(told)?;
        self.record(&mut tx, &scope, &format!("user set-password {id}")).await?;
        tx.commit().await?;
        Ok((row, shown))
    }

    /// Suspends, resumes or deletes a user; the last administrator too, for an operator can make
    /// another. Returns who they are, or were.
    ///
    /// # Errors
    /// When there is none such, or the database fails.
    pub async fn do_to_user(&self, named: Named<'_>, deed: Deed) -> anyhow::Result<UserRow> {
        let scope = self.scope(named.tenant).await?;
        let id = self.known(&scope, named).await?.id;
        let mut tx = WriteTx::open(&self.global, self.epoch, &self.op).await?;
        let subject = Subject { scope: &scope, id, matches: None, right: Right::Operator };
        let done = match deed {
            Deed::Suspend => people::suspend(&mut tx, subject, &self.op).await,
            Deed::Resume => people::resume(&mut tx, subject, &self.op).await,
            Deed::Delete => people::delete(&mut tx, subject, &self.op).await,
        };
        let row = done.map_err(told)?;
        self.record(&mut tx, &scope, &format!("user {} {id}", deed.word())).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// The hash, and the password if it was made here: one that its owner has brought is not told.
    async fn hash(
        &self,
        password: &NewPassword,
        about: &[&str],
    ) -> anyhow::Result<(String, Option<String>)> {
        let (password, shown) = match password {
            NewPassword::Given(given) => (Password::parse(given)?, None),
            NewPassword::Made => {
                let made = Password::make(&self.op);
                let shown = made.reveal().to_owned();
                (made, Some(shown))
            }
        };
        match self.passwords.hash(&password, about, &self.op).await {
            Ok(hash) => Ok((hash.as_str().to_owned(), shown)),
            Err(PasswordError::Weak(why)) => {
                anyhow::bail!("the password is too easy to guess. {why}")
            }
            Err(error) => Err(error.into()),
        }
    }
}
