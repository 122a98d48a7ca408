use super::*;
use crate::vocab::{OpKind, SystemClock, rng::SeededRng};
use std::time::Duration;

/// The cheapest there is: what is tested is not how long it takes.
fn cheap() -> PasswordConfig {
    PasswordConfig { memory_kib: 8, passes: 1, at_once_max: 1, ..PasswordConfig::default() }
}

fn peppered(names: &[&str], current: Option<&str>) -> PasswordConfig {
    let pepper = |name: &&str| {
        let secret = name.repeat(32).into();
        ((*name).to_owned(), crate::config::Pepper { secret })
    };
    let pepper_current = current.map(str::to_owned);
    PasswordConfig { pepper_current, peppers: names.iter().map(pepper).collect(), ..cheap() }
}

fn op() -> Op {
    let rng = Arc::new(SeededRng::new(7));
    Op::new(OpKind::Test, Arc::new(SystemClock), rng, Duration::from_secs(30))
}

fn password(text: &str) -> Password {
    Password::parse(&text.to_owned().into()).unwrap()
}

const GOOD: &str = "vex-lodestar-quibble-7";

async fn hashed(config: &PasswordConfig) -> StoredHash {
    Passwords::new(config).unwrap().hash(&password(GOOD), &[], &op()).await.unwrap()
}

#[test]
fn a_password_is_measured_in_characters_and_no_further_than_it_may_be_long() {
    for (text, fits) in [
        ("1234567".to_owned(), false),
        ("12345678".to_owned(), true),
        ("\u{1f426}".repeat(8), true),
        ("\u{1f426}".repeat(256), true),
        ("\u{1f426}".repeat(257), false),
        ("a".repeat(1 << 20), false),
    ] {
        let (chars, parsed) = (text.chars().count(), Password::parse(&text.into()));
        assert_eq!(parsed.is_ok(), fits, "{chars}");
    }
}

#[tokio::test]
async fn only_the_password_itself_is_right_however_it_is_composed() {
    let passwords = Passwords::new(&cheap()).unwrap();
    let composed = password("caf\u{e9} on the quay 9");
    let stored = passwords.hash(&composed, &[], &op()).await.unwrap();
    let verdict =
        async |text: &str| passwords.verify(&password(text), Some(&stored), &op()).await.unwrap();
    assert_eq!(verdict("cafe\u{301} on the quay 9").await, Verdict::Right { rehash: false });
    assert_eq!(verdict("cafe on the quay 9").await, Verdict::Wrong);
    let nobodys = passwords.verify(&composed, None, &op()).await.unwrap();
    assert_eq!(nobodys, Verdict::Wrong);
}

#[test]
fn nobody_costs_what_somebody_does() {
    for config in [PasswordConfig::default(), peppered(&["p1"], Some("p1"))] {
        let passwords = Passwords::new(&config).unwrap();
        assert!(!needs_rehash(&passwords.nobody, &config));
        let hash = PasswordHash::new(passwords.nobody.as_str()).unwrap();
        assert_eq!(Params::try_from(&hash).unwrap().m_cost(), config.memory_kib);
        assert_eq!(hash.salt.unwrap().len(), SALT_BYTES);
        assert_eq!(hash.hash.unwrap().len(), Params::DEFAULT_OUTPUT_LEN);
    }
}

#[tokio::test]
async fn the_stored_text_says_how_it_was_made() {
    let stored = hashed(&cheap()).await;
    assert!(stored.as_str().starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{}", stored.as_str());
    let other = hashed(&peppered(&["p1"], Some("p1"))).await;
    assert!(other.as_str().contains("keyid="), "{}", other.as_str());
    assert!(!format!("{stored:?} {:?}", password(GOOD)).contains(GOOD));
    assert!(!format!("{stored:?}").contains("argon2id"));
}

#[tokio::test]
async fn what_was_made_otherwise_is_to_be_made_anew() {
    let stored = hashed(&cheap()).await;
    assert!(!needs_rehash(&stored, &cheap()));
    for config in [
        PasswordConfig { memory_kib: 16, ..cheap() },
        PasswordConfig { passes: 2, ..cheap() },
        PasswordConfig { memory_kib: 16, lanes: 2, ..cheap() },
        peppered(&["p1"], Some("p1")),
    ] {
        assert!(needs_rehash(&stored, &config), "{config:?}");
    }
    // Not read any more, or never one of ours.
    for text in [
        "",
        "$2b$12$abcdefghijklmnopqrstuv",
        &stored.as_str().replace("argon2id", "argon2i"),
        &stored.as_str().replace("v=19", "v=16"),
    ] {
        assert!(needs_rehash(&StoredHash::from_stored(text.to_owned()), &cheap()), "{text}");
    }
}

#[tokio::test]
async fn a_pepper_is_needed_and_an_older_one_still_opens() {
    let old = peppered(&["p1"], Some("p1"));
    let stored = hashed(&old).await;
    let verdict = async |config: &PasswordConfig, stored: &StoredHash| {
        Passwords::new(config).unwrap().verify(&password(GOOD), Some(stored), &op()).await
    };
    assert_eq!(verdict(&old, &stored).await.unwrap(), Verdict::Right { rehash: false });
    let both = peppered(&["p1", "p2"], Some("p2"));
    assert_eq!(verdict(&both, &stored).await.unwrap(), Verdict::Right { rehash: true });
    let gone = verdict(&peppered(&["p2"], Some("p2")), &stored).await;
    assert!(matches!(gone, Err(PasswordError::Broken(_))), "{gone:?}");
    // The name without the secret is worth nothing.
    let mut forged = old.clone();
    forged.peppers.insert("p1".into(), crate::config::Pepper { secret: "x".repeat(32).into() });
    assert_eq!(verdict(&forged, &stored).await.unwrap(), Verdict::Wrong);
    let bare = hashed(&cheap()).await;
    assert_eq!(verdict(&both, &bare).await.unwrap(), Verdict::Right { rehash: true });
}

#[tokio::test]
async fn what_is_easy_to_guess_is_refused_with_a_reason() {
    let passwords = Passwords::new(&cheap()).unwrap();
    let about = ["ada.lovelace@analytical.example", "Ada King-Noel", "harrow-works"];
    for weak in [
        "password1",
        "correcthorse",
        "qwertyuiop",
        "aaaaaaaaaaaa",
        "ada.lovelace@analytical.example",
        "harrow-works1",
        "Ada King-Noel",
    ] {
        let refused = passwords.hash(&password(weak), &about, &op()).await;
        let Err(PasswordError::Weak(why)) = refused else { panic!("{weak}: {refused:?}") };
        assert!(!why.is_empty() && !why.contains(weak), "{weak}: {why}");
    }
    passwords.hash(&password(GOOD), &about, &op()).await.unwrap();
    passwords.hash(&Password::make(&op()), &about, &op()).await.unwrap();
}

#[tokio::test]
async fn who_gets_no_turn_in_time_is_told_so_and_turns_are_given_back() {
    let passwords = Passwords::new(&cheap()).unwrap();
    let held = Arc::clone(&passwords.turns).acquire_owned().await.unwrap();
    let hurried = Op::system(OpKind::Test, Duration::from_millis(50));
    let refused = passwords.hash(&password(GOOD), &[], &hurried).await;
    assert!(matches!(refused, Err(PasswordError::Busy)), "{refused:?}");
    drop(held);
    // One turn, and more who want it: each gets one.
    let all = (0..4).map(|_| async {
        let op = op();
        passwords.hash(&password(GOOD), &[], &op).await
    });
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(passwords.turns.available_permits(), 1);
}

/// The turn belongs to the work, not to who waits for it.
#[tokio::test]
async fn work_that_nobody_waits_for_keeps_its_turn_to_the_end() {
    let passwords = Passwords::new(&cheap()).unwrap();
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(0);
    let hurried = Op::system(OpKind::Test, Duration::from_millis(50));
    let given_up = passwords.take_a_turn(&hurried, move || {
        wait.recv().map_err(broken)?;
        Ok(())
    });
    assert!(matches!(given_up.await, Err(PasswordError::Busy)));
    assert_eq!(passwords.turns.available_permits(), 0);
    go.send(()).unwrap();
    let next = passwords.take_a_turn(&op(), || Ok(7)).await.unwrap();
    assert_eq!(next, 7);
}

#[test]
fn a_made_password_is_of_the_generators_bytes() {
    let made = Password::make(&op());
    assert_eq!(made.reveal().len(), MADE_CHARS);
    assert!(made.reveal().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let op = op();
    assert_ne!(Password::make(&op).reveal(), Password::make(&op).reveal());
}
