//! E-mail addresses of people.

use super::Malformed;
use email_address::{EmailAddress, Options};
use std::{fmt, str::FromStr};
use unicode_normalization::UnicodeNormalization as _;

/// Longest address in bytes: what SMTP can carry between its angle brackets (RFC 5321 section
/// 4.5.3.1.3, RFC 3696 erratum 1690).
pub const EMAIL_BYTES_MAX: usize = 254;

/// An address as its owner wrote it, in NFC, and the form in which two spellings of it are one.
///
/// Folded: the local part in NFKC and lower case, the domain as DNS compares it (UTS 46, A-labels).
/// By RFC 5321 section 2.4 a host may tell `Ada@` from `ada@`, but none does, and people write both;
/// NFKC makes one of what looks the same and differs by the keyboard. Dots and `+tags` are left
/// alone: what they mean is one provider's own affair. Mail goes to the address as given, never to
/// the folded one: folding may only ever refuse somebody an account, not lead mail elsewhere.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email {
    given: String,
    folded: String,
}

const EXPECTED: Malformed =
    Malformed::new("email", "one address such as ada@example.com, up to 254 bytes");

impl Email {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.given
    }
    /// What is unique within a tenant.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

fn address(text: &str) -> Option<EmailAddress> {
    let options = Options::default().with_required_tld().without_display_text();
    let parsed = EmailAddress::parse_with_options(text, options.without_domain_literal()).ok()?;
    // Quoted, one local part has many spellings, and no provider hands such a one out.
    let sound = text.len() <= EMAIL_BYTES_MAX && !parsed.local_part().starts_with('"');
    sound.then_some(parsed)
}

impl FromStr for Email {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        // Composed: mail's own form (RFC 6532 section 3.1), and the only one that the grammar's crate knows.
        let given: String = text.nfc().take(EMAIL_BYTES_MAX + 1).collect();
        let parsed = address(&given).ok_or(EXPECTED)?;
        let domain = idna::domain_to_ascii(parsed.domain()).map_err(|_| EXPECTED)?;
        let lower = |text: &str| text.nfkc().collect::<String>().to_lowercase();
        // Lower case can undo the normal form, as of a capital with a dot.
        let local: String = lower(parsed.local_part()).nfkc().collect();
        let folded = format!("{local}@{domain}");
        // What folds to no address, as a full-width @ would, was none to begin with.
        address(&folded).ok_or(EXPECTED)?;
        Ok(Self { given, folded })
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

super::serde_as_text!(Email);

/// Personal, so that no log line has it by accident.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        text.parse::<Email>().unwrap_or_else(|error| panic!("{text}: {error}")).folded
    }

    #[test]
    fn spellings_of_one_address_fold_to_one() {
        for (given, expected) in [
            ("ada@example.com", "ada@example.com"),
            ("Ada.Lovelace+1@Example.COM", "ada.lovelace+1@example.com"),
            ("\u{ff21}da@example.com", "ada@example.com"),
            ("o'brien@example.com", "o'brien@example.com"),
            // Composed and decomposed.
            ("zo\u{eb}@example.com", "zo\u{eb}@example.com"),
            ("zoe\u{308}@example.com", "zo\u{eb}@example.com"),
            ("ada@m\u{fc}nchen.example", "ada@xn--mnchen-3ya.example"),
            ("ada@xn--mnchen-3ya.example", "ada@xn--mnchen-3ya.example"),
        ] {
            assert_eq!(folded(given), expected, "{given}");
            let composed: String = given.nfc().collect();
            assert_eq!(given.parse::<Email>().unwrap().as_str(), composed);
        }
    }

    #[test]
    fn folding_twice_is_folding_once() {
        for given in ["\u{c4}da@example.com", "STRA\u{1e9e}E@example.com", "\u{fb01}@Example.com"] {
            let once = folded(given);
            assert_eq!(folded(&once), once, "{given}");
        }
    }

    #[test]
    fn what_is_no_plain_address_is_refused() {
        for text in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@localhost",
            "ada@[192.0.2.1]",
            "Ada <ada@example.com>",
            "\"ada\"@example.com",
            "ada@example.com ",
            "ada@exa mple.com",
            "a@b@example.com",
            "a\u{ff20}b@example.com",
            "ada\n@example.com",
            // In lower case it is two characters, of which mail's grammar knows one.
            "\u{130}da@example.com",
            &format!("{}@example.com", "a".repeat(65)),
            &format!("a@{}.com", "b.".repeat(130)),
        ] {
            assert!(text.parse::<Email>().is_err(), "{text}");
        }
    }

    #[test]
    fn it_does_not_show_itself_to_a_log() {
        let email: Email = "ada@example.com".parse().unwrap();
        assert!(!format!("{email:?}").contains("ada"));
    }
}
