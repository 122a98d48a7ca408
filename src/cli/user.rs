//! `godwit user`: a tenant's people, for when there is no administrator yet to make others.

use super::{About, Misused, block_on, table, tenant::BUDGET};
use crate::{
    assembly::operator::{
        Operator,
        users::{Deed, Named, NewPassword, UserWish},
    },
    storage::global::users::UserRow,
    vocab::{Op, OpKind, Role, UserId},
};
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::Serialize;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Make, list and change users
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit user create --tenant acme --email ada@example.com --name Ada --role admin --generate-password
         godwit user suspend --tenant acme ada@example.com")]
pub struct User {
    #[command(subcommand)]
    action: Action,
}

/// Where a password comes from; never an argument, which every process of the machine could read.
#[derive(Debug, Clone, clap::Args)]
struct Source {
    /// File whose first line is the password; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "generate_password")]
    password_file: Option<PathBuf>,
    /// Make a password, and show it this once
    #[arg(long)]
    generate_password: bool,
}

/// One user.
#[derive(Debug, Clone, clap::Args)]
struct Who {
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// An id or an e-mail address
    user: String,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a user; without a password nobody can sign in as them until one is set
    #[command(after_help = "\
Example: godwit user create --tenant acme --email ada@example.com --name Ada --role editor --generate-password
         pass show acme/ada | godwit user create --tenant acme --email ada@example.com --name Ada --password-file -")]
    Create {
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[arg(long, value_name = "ADDRESS")]
        email: String,
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// admin, editor, viewer or guest
        #[arg(long, default_value_t = Role::Viewer)]
        role: Role,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        about: About,
    },
    /// List a tenant's users
    #[command(after_help = "Example: godwit user list --tenant acme --output json")]
    List {
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[command(flatten)]
        about: About,
    },
    /// Show one user
    #[command(after_help = "Example: godwit user show --tenant acme ada@example.com")]
    Show {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        about: About,
    },
    /// Give a user another password
    #[command(after_help = "\
Example: godwit user set-password --tenant acme ada@example.com --generate-password
         godwit user set-password --tenant acme ada@example.com --password-file secret.txt")]
    SetPassword {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        about: About,
    },
    /// Keep a user out until they are resumed; the last administrator too
    #[command(after_help = "Example: godwit user suspend --tenant acme ada@example.com")]
    Suspend {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        about: About,
    },
    /// End a user's suspension
    #[command(after_help = "Example: godwit user resume --tenant acme ada@example.com")]
    Resume {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        about: About,
    },
    /// Erase a user for good; the last administrator too
    #[command(after_help = "Example: godwit user delete --tenant acme ada@example.com")]
    Delete {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        about: About,
    },
}

#[derive(Serialize)]
struct Facts {
    id: UserId,
    tenant: String,
    email: String,
    name: String,
    role: Role,
    /// Only one that was just made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    version: i64,
    password_changed_at: Option<DateTime<Utc>>,
    suspended_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Facts {
    fn new(row: UserRow, tenant: &str) -> Self {
        Self {
            id: row.id,
            tenant: tenant.to_owned(),
            email: row.email,
            name: row.name,
            role: row.role,
            password: None,
            version: row.version,
            password_changed_at: row.password_changed_at,
            suspended_at: row.suspended_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }

    fn standing(&self) -> String {
        match (self.suspended_at, self.password_changed_at) {
            (Some(at), _) => format!("suspended {}", at.format("%Y-%m-%d")),
            (None, None) => "no password".to_owned(),
            (None, Some(_)) => "active".to_owned(),
        }
    }

    fn row(&self) -> Vec<String> {
        let standing = self.standing();
        vec![
            self.id.to_string(),
            self.email.clone(),
            self.role.to_string(),
            standing,
            self.name.clone(),
        ]
    }
}

fn head(facts: &[Facts]) -> String {
    table(&["ID", "EMAIL", "ROLE", "STANDING", "NAME"], facts.iter().map(Facts::row))
}

/// With the password that was made, where one was.
fn shown(facts: &Facts) -> String {
    let password = facts.password.as_ref().map(|made| format!("{made}\n")).unwrap_or_default();
    format!("{password}{}", head(std::slice::from_ref(facts)))
}

/// Longest password file that is read: more than a password can have, less than a mistake could.
const FILE_BYTES_MAX: u64 = 64 * 1024;

impl Source {
    /// The password, if there is to be one.
    fn password(&self) -> anyhow::Result<Option<NewPassword>> {
        let line = match &self.password_file {
            _ if self.generate_password => return Ok(Some(NewPassword::Made)),
            None => return Ok(None),
            Some(path) if path == Path::new("-") => read(std::io::stdin())?,
            Some(path) => {
                let file = std::fs::File::open(path);
                read(file.with_context(|| path.display().to_string())?)?
            }
        };
        Ok(Some(NewPassword::Given(line)))
    }
}

/// The first line.
fn read(from: impl Read) -> anyhow::Result<SecretString> {
    let mut text = String::new();
    from.take(FILE_BYTES_MAX).read_to_string(&mut text).context("the password cannot be read")?;
    Ok(text.lines().next().unwrap_or_default().into())
}

impl User {
    pub fn run(self) -> anyhow::Result<()> {
        let op = Op::system(OpKind::Command, BUDGET);
        match self.action {
            Action::Create { tenant, email, name, role, source, about } => {
                let password = source.password()?;
                let config = about.target.load()?;
                let wish = UserWish { tenant: &tenant, email: &email, name: &name, role, password };
                let (made, password) = block_on(async {
                    Operator::connect(&config, op).await?.create_user(&wish).await
                })?;
                let facts = Facts { password, ..Facts::new(made, &tenant) };
                about.output.print(&facts, shown)
            }
            Action::List { tenant, about } => {
                let config = about.target.load()?;
                let listed = async { Operator::connect(&config, op).await?.users(&tenant).await };
                let users = block_on(listed)?;
                let users: Vec<_> = users.into_iter().map(|row| Facts::new(row, &tenant)).collect();
                about.output.print(&users, |users| head(users))
            }
            Action::Show { who, about } => {
                let config = about.target.load()?;
                let row = block_on(async {
                    Operator::connect(&config, op).await?.user(who.named()).await
                })?;
                about.output.print(&Facts::new(row, &who.tenant), shown)
            }
            Action::SetPassword { who, source, about } => {
                let password = source.password()?.ok_or_else(|| {
                    Misused("name a --password-file, or ask to --generate-password".into())
                })?;
                let config = about.target.load()?;
                let (row, password) = block_on(async {
                    let operator = Operator::connect(&config, op).await?;
                    operator.set_user_password(who.named(), &password).await
                })?;
                let facts = Facts { password, ..Facts::new(row, &who.tenant) };
                about.output.print(&facts, shown)
            }
            Action::Suspend { who, about } => who.undergo(Deed::Suspend, &about, op),
            Action::Resume { who, about } => who.undergo(Deed::Resume, &about, op),
            Action::Delete { who, about } => who.undergo(Deed::Delete, &about, op),
        }
    }
}

impl Who {
    fn named(&self) -> Named<'_> {
        Named { tenant: &self.tenant, user: &self.user }
    }

    fn undergo(&self, deed: Deed, about: &About, op: Op) -> anyhow::Result<()> {
        let config = about.target.load()?;
        let done =
            async { Operator::connect(&config, op).await?.do_to_user(self.named(), deed).await };
        let facts = Facts::new(block_on(done)?, &self.tenant);
        about.output.print(&facts, |facts| match deed {
            Deed::Delete => format!("{} is deleted", facts.id),
            Deed::Suspend | Deed::Resume => shown(facts),
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_is_the_first_line_and_no_argument() {
        let read = |text: &str| {
            let line = super::read(text.as_bytes()).unwrap();
            secrecy::ExposeSecret::<str>::expose_secret(&line).to_owned()
        };
        assert_eq!(read("six otters 1\r\nmore\n"), "six otters 1");
        assert_eq!(read(" six otters "), " six otters ");
        assert_eq!(read(""), "");
        assert!(super::read(&[0xff_u8][..]).is_err());
        let user = <super::super::Cli as clap::CommandFactory>::command();
        let user = user.find_subcommand("user").unwrap();
        for action in user.get_subcommands() {
            assert!(action.get_arguments().all(|argument| argument.get_id() != "password"));
        }
    }
}
