//! Passwords: whether one is good enough, its hash, and whether one is right.
//!
//! Hashing is slow on purpose, so it has threads of its own, which let all others run first, as many at
//! once as the settings say; who comes later waits for a turn, never longer than the operation has time.
//! What is stored is a PHC string of argon2id that says how it was made; a pepper's name is its `keyid`.

use crate::{
    config::PasswordConfig,
    vocab::{Malformed, Op, Rng},
};
use argon2::{
    Algorithm, Argon2, KeyId, Params, ParamsBuilder, PasswordHasher as _, PasswordVerifier as _,
    Version,
    password_hash::{
        self,
        phc::{ParamsString, PasswordHash},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{fmt, ops::RangeInclusive, sync::Arc};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;
use zxcvbn::Score;

/// Shortest and longest password, in characters. OWASP ASVS 5.0, 6.2.1 and 6.2.9, and four times what
/// the latter asks for.
pub const PASSWORD_CHARS: RangeInclusive<usize> = 8..=256;
/// Characters of a password that is made for somebody: some 143 bits.
const MADE_CHARS: usize = 24;
const SALT_BYTES: usize = 16;
/// How far a thread that hashes steps back: a tenth of the share of one that does not.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
/// Most hashes at once where the settings leave it to the machine: each takes its memory too.
const TURNS_UNLESS_SET: usize = 4;
const MADE_OF: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A password as it was sent, of a length that can be hashed. Whether it is a good one is not said.
#[derive(Debug, Clone)]
pub struct Password(SecretString);

impl Password {
    /// Measures it, before anything is done that costs more the longer it is.
    ///
    /// # Errors
    /// When it has fewer or more characters than [`PASSWORD_CHARS`].
    pub fn parse(given: &SecretString) -> Result<Self, Malformed> {
        let text = given.expose_secret();
        let chars = text.chars().take(PASSWORD_CHARS.end() + 1).count();
        if !PASSWORD_CHARS.contains(&chars) {
            return Err(Malformed::new("password", "8 to 256 characters"));
        }
        // One password however a keyboard composes its letters (RFC 8265 section 4.2.2).
        Ok(Self(text.nfc().collect::<String>().into()))
    }

    /// A new one for somebody, from the operation's generator.
    #[must_use]
    pub fn make(op: &Op) -> Self {
        let mut made = String::with_capacity(MADE_CHARS);
        push_random(&mut made, &*op.rng);
        Self(made.into())
    }

    /// To be shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Each character as likely as any other: bytes from 248 on, which 62 does not divide evenly, are
/// drawn again.
fn push_random(text: &mut String, rng: &dyn Rng) {
    const EVEN: u8 = 248;
    while text.len() < MADE_CHARS {
        let mut bytes = [0; MADE_CHARS];
        rng.fill(&mut bytes);
        let left = MADE_CHARS - text.len();
        let even = bytes.into_iter().filter(|byte| *byte < EVEN).take(left);
        text.extend(even.map(|byte| char::from(MADE_OF[usize::from(byte % 62)])));
    }
}

/// What is stored of a password: a PHC string. `Debug` hides it.
#[derive(Clone)]
pub struct StoredHash(String);

impl StoredHash {
    /// For storage alone.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredHash(..)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too easy to guess, and why, for its owner.
    #[error("the password is too easy to guess")]
    Weak(String),
    /// No turn came, or no answer, while the operation had time.
    #[error("passwords are being hashed, and none of the turns came in time")]
    Busy,
    #[error("a password cannot be hashed: {0}")]
    Broken(String),
}

/// Whether a password is that of a stored hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Right {
        /// The hash was made at another cost, or with another pepper, than are set now.
        rehash: bool,
    },
    Wrong,
}

/// Hashes and compares. Cheap to clone: all clones share the turns.
#[derive(Clone)]
pub struct Passwords {
    config: Arc<PasswordConfig>,
    params: Params,
    /// What a password is compared with when there is nobody to compare it with.
    nobody: StoredHash,
    turns: Arc<Semaphore>,
}

impl Passwords {
    /// # Errors
    /// When argon2 cannot be had at this cost; settings that have been validated are none of these.
    pub fn new(config: &PasswordConfig) -> Result<Self, PasswordError> {
        let params = params(config)?;
        let cost = ParamsString::try_from(&params).map_err(broken)?;
        // A salt and a hash of nothing: the work is that of any other, and no password has it.
        let (salt, hash) = ("A".repeat(22), "A".repeat(43));
        let nobody = format!("$argon2id$v=19${cost}${salt}${hash}");
        PasswordHash::new(&nobody).map_err(broken)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let turns = match usize::try_from(config.at_once_max).unwrap_or(1) {
            0 => (cores / 2).clamp(1, TURNS_UNLESS_SET),
            set => set,
        };
        Ok(Self {
            config: Arc::new(config.clone()),
            params,
            nobody: StoredHash(nobody),
            turns: Arc::new(Semaphore::new(turns)),
        })
    }

    /// Hashes a new password, if it is not too easy to guess for who knows `about` its owner.
    ///
    /// Cancellation: the turn is kept until the hash is done, and nothing comes of it.
    ///
    /// # Errors
    /// [`PasswordError::Weak`]; [`PasswordError::Busy`] within the operation's deadline.
    pub async fn hash(
        &self,
        password: &Password,
        about: &[&str],
        op: &Op,
    ) -> Result<StoredHash, PasswordError> {
        let (this, password) = (self.clone(), password.clone());
        let about = words(about);
        let mut salt = [0; SALT_BYTES];
        op.rng.fill(&mut salt);
        self.take_a_turn(op, move || {
            judge(&password, &about)?;
            this.make(&password, &salt)
        })
        .await
    }

    /// Hashes a password anew that is the user's already, as the settings are now. However easy to guess it
    /// is, it is theirs.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] within the operation's deadline.
    pub async fn rehash(&self, password: &Password, op: &Op) -> Result<StoredHash, PasswordError> {
        let (this, password) = (self.clone(), password.clone());
        let mut salt = [0; SALT_BYTES];
        op.rng.fill(&mut salt);
        self.take_a_turn(op, move || this.make(&password, &salt)).await
    }

    fn make(&self, password: &Password, salt: &[u8]) -> Result<StoredHash, PasswordError> {
        let argon = self.argon(self.config.pepper_current.as_deref(), &self.params)?;
        let hash = argon.hash_password_with_salt(password.reveal().as_bytes(), salt);
        Ok(StoredHash(hash.map_err(broken)?.to_string()))
    }

    /// Compares a password with a stored hash; with `None`, of a user who has no password or does not
    /// exist, at the same cost, and it is wrong.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] within the operation's deadline; [`PasswordError::Broken`] when the
    /// stored hash cannot be read, or its pepper is not in the settings.
    pub async fn verify(
        &self,
        password: &Password,
        stored: Option<&StoredHash>,
        op: &Op,
    ) -> Result<Verdict, PasswordError> {
        let (this, password) = (self.clone(), password.clone());
        let (somebody, stored) = (stored.is_some(), stored.unwrap_or(&self.nobody).clone());
        self.take_a_turn(op, move || {
            let hash = PasswordHash::new(stored.as_str()).map_err(broken)?;
            let params = Params::try_from(&hash).map_err(broken)?;
            let pepper = std::str::from_utf8(params.keyid()).map_err(broken)?;
            let argon = this.argon(Some(pepper).filter(|name| !name.is_empty()), &params)?;
            match argon.verify_password(password.reveal().as_bytes(), &hash) {
                Ok(()) if somebody => {
                    Ok(Verdict::Right { rehash: needs_rehash(&stored, &this.config) })
                }
                Ok(()) | Err(password_hash::Error::PasswordInvalid) => Ok(Verdict::Wrong),
                Err(error) => Err(broken(error)),
            }
        })
        .await
    }

    fn argon(&self, pepper: Option<&str>, params: &Params) -> Result<Argon2<'_>, PasswordError> {
        let (algorithm, version, params) = (Algorithm::Argon2id, Version::V0x13, params.clone());
        let Some(name) = pepper else {
            return Ok(Argon2::new(algorithm, version, params));
        };
        let pepper = self.config.peppers.get(name);
        let pepper = pepper.ok_or_else(|| broken(format!("the pepper `{name}` is not set")))?;
        let secret = pepper.secret.expose_secret().as_bytes();
        Argon2::new_with_secret(secret, algorithm, version, params).map_err(broken)
    }

    /// Runs `work` on a thread of its own, once one of the turns is free. First come, first served.
    async fn take_a_turn<T: Send + 'static>(
        &self,
        op: &Op,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let turn = turn.map_err(|_| PasswordError::Busy)?;
            let (tell, done) = tokio::sync::oneshot::channel();
            // Not one of the runtime's: it could not be given its priority back. There are as many as there
            // are turns, and starting one is nothing beside a hash.
            let hashing = move || {
                give_way();
                let outcome = work();
                // Held to the end of the work, whether or not somebody still waits for it.
                drop(turn);
                let _ = tell.send(outcome);
            };
            std::thread::Builder::new().name("password".into()).spawn(hashing).map_err(broken)?;
            done.await.map_err(broken)?
        };
        match tokio::time::timeout(op.remaining(), turn).await {
            Ok(done) => done,
            Err(_) => Err(PasswordError::Busy),
        }
    }
}

/// Lets everybody's reads run before this thread: a hash takes a core for tens of milliseconds, and nobody
/// notices whether it is ten more. It still gets a tenth of a core that is wanted by others.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // The system call means the calling thread (setpriority(2), "C library/kernel differences").
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// Whether a stored hash was made in another way than the settings now want. What cannot be read was.
#[must_use]
pub fn needs_rehash(stored: &StoredHash, config: &PasswordConfig) -> bool {
    let Ok(hash) = PasswordHash::new(stored.as_str()) else { return true };
    let (Ok(made), Ok(wanted)) = (Params::try_from(&hash), params(config)) else { return true };
    let as_wanted = hash.algorithm.as_str() == Algorithm::Argon2id.as_str()
        && hash.version == Some(Version::V0x13.into())
        && (made.m_cost(), made.t_cost(), made.p_cost())
            == (wanted.m_cost(), wanted.t_cost(), wanted.p_cost())
        && made.keyid() == wanted.keyid();
    !as_wanted
}

fn params(config: &PasswordConfig) -> Result<Params, PasswordError> {
    let mut builder = ParamsBuilder::new();
    builder.m_cost(config.memory_kib).t_cost(config.passes).p_cost(config.lanes);
    if let Some(name) = &config.pepper_current {
        builder.keyid(KeyId::new(name.as_bytes()).map_err(broken)?);
    }
    builder.build().map_err(broken)
}

fn broken(error: impl fmt::Display) -> PasswordError {
    PasswordError::Broken(error.to_string())
}

/// What is known about a password's owner, and the words in it.
fn words(about: &[&str]) -> Vec<String> {
    let apart = |text: &str| {
        let parts = text.split(|letter: char| !letter.is_alphanumeric());
        parts.filter(|part| part.chars().count() > 2).map(str::to_owned).collect::<Vec<_>>()
    };
    about.iter().flat_map(|text| [vec![(*text).to_owned()], apart(text)].concat()).collect()
}

/// Whether it stands some 10^8 guesses (zxcvbn, score 3).
fn judge(password: &Password, about: &[String]) -> Result<(), PasswordError> {
    let about: Vec<&str> = about.iter().map(String::as_str).chain(["godwit"]).collect();
    let found = zxcvbn::zxcvbn(password.reveal(), &about);
    if found.score() >= Score::Three {
        return Ok(());
    }
    let advice = found.feedback().map(|feedback| {
        let warning = feedback.warning().map(|warning| warning.to_string());
        let more = feedback.suggestions().iter().map(ToString::to_string);
        warning.into_iter().chain(more).collect::<Vec<_>>().join(" ")
    });
    Err(PasswordError::Weak(advice.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
