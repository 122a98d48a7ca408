//! What is written, in code and in prose.

use crate::source::{Tree, extension, parse};
use std::collections::BTreeSet;
use syn::visit::Visit;

/// Not in any text of ours.
const BANNED: &[&str] = &["master", "slave", "utils", "manager", "todo", "fixme"];

/// Not in a name that we give: each says nothing that a noun of the trade would not say better.
const BANNED_NAMES: &[&str] = &[
    "master", "slave", "utils", "util", "manager", "service", "sync", "helper", "helpers", "misc",
];

/// Names that other people gave.
const FOREIGN: &[&str] = &[
    "ConnectionManager",
    "ConnectionManagerConfig",
    "cert-manager",
    "controllerManager",
    "deadpool_redis::Manager",
    "kubernetes_validate.utils",
    "Secrets Manager",
    // Of Amazon's interfaces.
    "kms_master_key_id",
    "manage_master_user_password",
    "master-user-password",
    "master_password_wo",
    "master_user_secret",
    "master_username",
];

const PROSE: &[&str] = &["rs", "md", "sql", "sh", "py", "lua", "mjs", "yaml", "yml", "tf"];

/// Files there are named for the kinds of Kubernetes.
const KINDS: &[&str] = &["helm/", "k8s/"];

/// The laws themselves have to name what they forbid.
fn is_law(path: &str) -> bool {
    path == "tests/tidy.rs" || path.starts_with("tests/tidy/")
}

pub fn banned(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| !is_law(path)) {
        if extension(path).is_some_and(|extension| !PROSE.contains(&extension)) {
            continue;
        }
        let named = if KINDS.iter().any(|room| path.starts_with(room)) { "" } else { path };
        for word in
            words(named).intersection(&BANNED_NAMES.iter().map(ToString::to_string).collect())
        {
            complaints.push(format!("{path}: `{word}` in a file's name"));
        }
        for (number, line) in text.lines().enumerate() {
            let ours = FOREIGN.iter().fold(line.to_owned(), |line, name| line.replace(name, ""));
            let words = words(&ours);
            for word in BANNED.iter().filter(|word| words.contains(**word)) {
                complaints.push(format!("{path}:{}: the word `{word}`", number + 1));
            }
        }
        if extension(path) == Some("rs") {
            let mut names = Names(Vec::new());
            names.visit_file(&parse(path, text));
            for name in names.0 {
                for word in BANNED_NAMES.iter().filter(|word| words(&name).contains(**word)) {
                    complaints.push(format!("{path}: `{word}` in the name `{name}`"));
                }
            }
        }
    }
    complaints
}

/// The words of a text in lower case; `KeyRing` and `key_ring` are two each.
fn words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut word = String::new();
    let mut before = ' ';
    for letter in text.chars().chain([' ']) {
        let starts = letter.is_uppercase() && before.is_lowercase();
        if (starts || !letter.is_alphabetic()) && !word.is_empty() {
            words.insert(std::mem::take(&mut word));
        }
        if letter.is_alphabetic() {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    words
}

/// Names that a file gives.
struct Names(Vec<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.0.push(item.ident.to_string());
        syn::visit::visit_item_struct(self, item);
    }
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.0.push(item.ident.to_string());
    }
    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.0.push(item.ident.to_string());
        syn::visit::visit_item_trait(self, item);
    }
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.0.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
    }
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0.push(signature.ident.to_string());
    }
    fn visit_field(&mut self, field: &'ast syn::Field) {
        self.0.extend(field.ident.as_ref().map(ToString::to_string));
    }
}

/// What makes or uses a sequence. A standby's sequences run ahead of its primary's, and after a
/// promotion lost numbers come twice (`shared/postgres.md`, lesson 14).
const SEQUENCES: &[&str] = &[
    "sequence",
    "serial",
    "smallserial",
    "bigserial",
    "identity",
    "nextval",
    "currval",
    "lastval",
    "setval",
];

pub fn sequences(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| extension(path) == Some("sql")) {
        for (number, line) in text.lines().enumerate() {
            let words = words(line.split("--").next().unwrap_or_default());
            for word in SEQUENCES.iter().filter(|word| words.contains(**word)) {
                complaints.push(format!("{path}:{}: `{word}`, a sequence", number + 1));
            }
        }
    }
    complaints
}

/// Paths and hosts that only one machine or workplace has.
pub fn machine(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    // The lock file names the registry by its well-known index, not by a host of ours.
    let files = tree.files().filter(|(path, _)| !is_law(path) && *path != "Cargo.lock");
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let at = format!("{path}:{}", number + 1);
            if ["/work/", "/root/", "/home/"].iter().any(|start| names_path(line, start)) {
                complaints.push(format!("{at}: a path of one machine"));
            }
            if REGISTRY_HOSTS.iter().any(|host| line.contains(host)) {
                complaints.push(format!("{at}: the host of a package registry"));
            }
        }
    }
    complaints
}

const REGISTRY_HOSTS: &[&str] = &[
    "index.crates.io",
    "static.crates.io",
    "pypi.org",
    "pythonhosted.org",
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    "proxy.golang.org",
    "deb.debian.org",
];

/// Whether an absolute path starts with `start`: `../work/` does not.
fn names_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !"._-}/)*$".contains(before))
    })
}
